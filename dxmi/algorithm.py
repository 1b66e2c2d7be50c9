"""DxMI: the min-max game between an energy and a sampler (MATH 3), one round at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.api import Cost, CostToGo, Energy, GaussianSampler, Sampler, Transition
from dxmi.errors import require
from dxmi.learning import Game, Learning, optimizer
from dxmi.objectives import (
    gcd_loss,
    mean_square_steps,
    random_transitions,
    rollout,
    soft_q,
    time_cost,
    transitions,
    walk,
)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through the modules but not into their parameters."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


class DxMI:
    """The players, their optimisers and one round of the game.

    An energy without parameters is a known density and stays as it is. Networks must know their sizes already
    (no lazy parameters left). ``ema.module`` is the averaged sampler,
    ``value_ema.module`` the averaged value where the sampler follows its gradient.

    Args:
        value: a network with time; None makes the energy's network the value too (the paper's image runs)
        accelerator: places the players and averages over processes; None takes accelerate's default device

    Raises:
        ConfigError: the optimiser does not exist or does not take the betas
    """

    def __init__(
        self,
        energy: Energy,
        sampler: Sampler,
        value: Energy | None = None,
        game: Game | None = None,
        learning: Learning | None = None,
        accelerator: Accelerator | None = None,
    ):
        self.game, self.learning = game or Game(), learning or Learning()
        self.accelerator = accelerator or Accelerator()
        self.energy, self.sampler, self.value = energy, sampler, value
        players: dict[str, nn.Module | None] = {"energy": energy, "value": value, "sampler": sampler}
        self.networks: dict[str, Any] = {}  # what learns, as accelerate wraps it
        self.optimizers: dict[str, Any] = {}
        for module in filter(None, players.values()):
            module.to(self.accelerator.device)
        # Copied before accelerate wraps forward in its mixed precision: what is exported runs without it too.
        average = get_ema_multi_avg_fn(self.learning.ema)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(sampler, multi_avg_fn=average)
        guided = isinstance(sampler, GaussianSampler) and sampler.value_guided
        self.value_ema = AveragedModel(value, multi_avg_fn=average) if guided and value is not None else None
        for name, player in players.items():
            if player is not None and any(p.requires_grad for p in player.parameters()):
                optim = optimizer(player, self.learning, self._rate(name))
                self.networks[name], self.optimizers[name] = self.accelerator.prepare(player, optim)
        self.s2: Tensor | None = None
        self.chains: Tensor | None = None
        self.rounds = 0

    def round(self, batch: Tensor | None, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """One round of the game.

        batch: data as the dataset gives them, or None for a known density; shape: (B,*S) of the rollout.
        Returns scalars to log, averaged over processes.

        Raises:
            FloatingPointError: a loss is not finite
        """
        data, cond = (None, None) if batch is None else self.sampler.encode(batch)
        J = Cost(self.energy, self.value, self.sampler.steps, cond)
        xs = self.play(J, shape, data, cond)
        log: dict[str, Tensor] = {}
        if data is not None and "energy" in self.networks:
            log |= self.learn_energy(data, xs[-1], cond)
        else:
            with torch.no_grad():
                log["e_sample"] = self.energy(xs[-1]).mean()
        if isinstance(self.sampler, GaussianSampler):
            s2 = self.learn_velocity(xs)
            log |= self.learn_value(J, xs, s2, cond)
            if self.value_ema is not None and self.value is not None:
                self.value_ema.update_parameters(self.value)
            if self.rounds >= self.game.warmup:
                log |= self.learn_policy(J, xs, s2, cond)
                self.ema.update_parameters(self.sampler)
        self.rounds += 1
        return self._checked(log)

    @property
    def policy(self) -> GaussianSampler:
        """The sampler, where it can learn."""
        return cast(GaussianSampler, self.sampler)

    def play(self, J: CostToGo, shape: tuple[int, ...], data: Tensor | None, cond: Tensor | None) -> Tensor:
        """The rollout xs (T+1,B,*S); of a chain that cannot learn the samples alone, (1,B,*S)."""
        if isinstance(self.sampler, GaussianSampler):
            return rollout(self.sampler, J, shape, cond=cond)
        rows, start = None, data if self.game.start == "data" else None
        if self.game.start == "chains":
            require(self.game.chains >= shape[0], f"game.chains: {self.game.chains} do not fill a batch of {shape[0]}")
            if self.chains is None:
                self.chains = self.sampler.initial((self.game.chains, *shape[1:]))
            rows = torch.randperm(len(self.chains), device=self.chains.device)[: shape[0]]
            start = self.chains[rows]
        for x in walk(self.sampler, J, shape, cond=cond, start=start):
            end = x
        if rows is not None and self.chains is not None:
            self.chains[rows] = end
        return end[None]

    def transitions(self, xs: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of (x_t, t, x_{t+1}) that value and policy learn from in this round."""
        return transitions(xs, first) if self.game.sweep else random_transitions(xs, first)

    def learn_energy(self, data: Tensor, sample: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.1). One forward pass over both batches, so that DDP sees one."""
        both = torch.cat([data, sample])
        both = both + self.game.noise * torch.randn_like(both)
        end = torch.full((len(both),), self.sampler.steps, device=both.device)
        energies = self.networks["energy"](both, end, None if cond is None else torch.cat([cond, cond]))
        e_data, e_sample = energies.split([len(data), len(sample)])
        self._descend("energy", gcd_loss(e_data, e_sample, self.game.gamma))
        return {"e_data": e_data.detach().mean(), "e_sample": e_sample.detach().mean()}

    def learn_value(self, J: CostToGo, xs: Tensor, s2: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.3), (4.2): temporal difference; at t >= 1 unless the start is learned, else nobody descends V_0."""
        player = "energy" if self.value is None else "value"
        losses = []
        for x, t, x_next in (
            self.transitions(xs, first=0 if self.policy.value_guided else 1) if player in self.networks else ()
        ):
            with torch.no_grad():
                target = self.target(J, x, t, x_next, s2, cond)
            loss = (self.networks[player](x, t, cond) - target).square().mean()
            self._descend(player, loss)
            losses.append(loss.detach())
        return {"value_loss": torch.stack(losses).mean()} if losses else {}

    def target(self, J: CostToGo, x: Tensor, t: Tensor, x_next: Tensor, s2: Tensor, cond: Tensor | None) -> Tensor:
        """What the value at (x, t) should be: ``J(x_next, t+1)`` plus the time cost or the running cost. (B,)."""
        g, T = self.game, self.sampler.steps
        if self.policy.value_guided:
            step: Transition = self.policy(x, t, J, cond)  # redrawn, since the rollout may have explored
            return J(step.sample(), t + 1) + self.policy.running_cost(x, t, step)
        if g.time_cost is not None:
            return J(x_next, t + 1) + g.time_cost * time_cost(t, T)
        return soft_q(J, x, t, self.sampler(x, t, J, cond), x_next, s2[t], g.tau1, g.tau2)

    def learn_policy(self, J: CostToGo, xs: Tensor, s2: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.4): single transitions, through a frozen value; memory does not grow with T."""
        losses = []
        with frozen(*filter(None, (self.energy, self.value))):
            if self.policy.value_guided:
                loss = self.policy.start_loss(J, tuple(xs.shape[1:]))
                self._descend("sampler", loss)
                return {"start_loss": loss.detach()}
            for x, t, _ in self.transitions(xs):
                step: Transition = self.networks["sampler"](x, t, J, cond)
                loss = soft_q(J, x, t, step, step.sample(), s2[t], self.game.tau1, self.game.tau2).mean()
                self._descend("sampler", loss)
                losses.append(loss.detach())
        return {"policy_loss": torch.stack(losses).mean()}

    def learn_velocity(self, xs: Tensor) -> Tensor:
        """MATH (3.5); the first rollout sets it. Returns s_t^2, (T,)."""
        moved = self.accelerator.reduce(mean_square_steps(xs), "mean")
        self.s2 = moved if self.s2 is None else self.s2.lerp(moved, 1 - self.game.avr)
        return self.s2

    def state_dict(self) -> dict[str, Any]:
        """What accelerate does not save by itself: adaptive velocity, persistent chains, number of rounds."""
        return {"s2": self.s2, "chains": self.chains, "rounds": self.rounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        for name in ("s2", "chains"):
            kept = state[name]
            setattr(self, name, None if kept is None else kept.to(self.accelerator.device))
        self.rounds = state["rounds"]

    def _rate(self, player: str) -> float:
        rate = getattr(self.learning.lr, player)
        return float(self.learning.lr.energy if rate is None else rate)

    def _descend(self, player: str, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        self.accelerator.backward(loss)
        limit = getattr(self.learning.clip, player)
        if limit is not None:
            self.accelerator.clip_grad_norm_(self.networks[player].parameters(), limit)
        self.optimizers[player].step()

    def _checked(self, log: dict[str, Tensor]) -> dict[str, Tensor]:
        if not log:
            return log
        means = self.accelerator.reduce(torch.stack(list(log.values())), "mean")
        for name, mean in zip(log, means, strict=True):
            if not mean.isfinite():
                raise FloatingPointError(f"{name} is not finite in round {self.rounds}; lower the learning rates")
        return dict(zip(log, means, strict=True))
