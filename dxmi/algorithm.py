"""DxMI: the min-max game between an energy and a sampler (MATH 3), one round at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.api import ConfigError, CostToGo, Energy, GaussianSampler, Transition
from dxmi.objectives import gcd_loss, mean_square_steps, rollout, soft_q, time_cost, transitions


@dataclass(kw_only=True)
class Game:
    """The weights of the game's terms (MATH 3).

    Args:
        tau1: weight of the policy's conditional entropy
        tau2: weight of the velocity cost
        gamma: weight of the squared energies in the energy loss
        avr: averaging factor of the adaptive velocity, in [0, 1]; 1 keeps its first values
        time_cost: weight of the time cost that replaces the running cost in the value's target; null keeps the latter
        warmup: rounds at the start in which only the energy learns
    """

    tau1: float = 0.1
    tau2: float = 0.01
    gamma: float = 1.0
    avr: float = 0.99
    time_cost: float | None = 1.0
    warmup: int = 50


@dataclass(kw_only=True)
class PerPlayer:
    """One number for each player; null for the value means the energy's."""

    energy: float | None = None
    sampler: float | None = None
    value: float | None = None


@dataclass(kw_only=True)
class Rates:
    """Learning rates. Args:
        energy: of the energy
        sampler: of the sampler's network
        std: of the logarithms of its standard deviations
        value: of a separate value network; null means the energy's
    """

    energy: float = 3e-4
    sampler: float = 1e-5
    std: float = 1e-3
    value: float | None = None


@dataclass(kw_only=True)
class Learning:
    """How the players learn.

    Args:
        lr: learning rates
        optimizer: a class of torch.optim
        betas: Adam-like optimisers' betas; null for an optimiser without them
        clip: largest gradient norm of each player; null does not clip
        ema: decay of the moving average of the sampler's weights, which is what gets evaluated and exported
    """

    lr: Rates = field(default_factory=Rates)
    optimizer: str = "Adam"
    betas: tuple[float, float] | None = (0.0, 0.9)
    clip: PerPlayer = field(default_factory=lambda: PerPlayer(sampler=0.1))
    ema: float = 0.99


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


def optimizer(module: nn.Module, learning: Learning, rate: float) -> torch.optim.Optimizer:
    """The optimiser of one player; parameters named ``log_std`` learn at ``lr.std``.

    Raises:
        ConfigError: torch.optim has no such class, or it does not take the betas
    """
    kind = getattr(torch.optim, learning.optimizer, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ConfigError(f"optimizer: torch.optim has no '{learning.optimizer}'; try Adam, AdamW or RAdam")
    options: dict[str, Any] = {} if learning.betas is None else {"betas": learning.betas}
    if learning.betas is not None and "betas" not in inspect.signature(kind).parameters:
        raise ConfigError(f"betas: torch.optim.{learning.optimizer} takes none; set betas: null")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        own = learning.lr.std if name.endswith("log_std") else rate
        if parameter.requires_grad:
            groups.setdefault(own, []).append(parameter)
    return kind([{"params": p, "lr": lr} for lr, p in groups.items()], **options)


class DxMI:
    """The players, their optimisers and one round of the game.

    An energy without parameters is a known density and stays as it is. Networks must know their sizes already
    (no lazy parameters left). ``ema.module`` is the averaged sampler.

    Args:
        value: a network with time; None makes the energy's network the value too (the paper's image runs)
        accelerator: places the players and averages over processes; None takes accelerate's default device

    Raises:
        ConfigError: the optimiser does not exist or does not take the betas
    """

    def __init__(
        self,
        energy: Energy,
        sampler: GaussianSampler,
        value: Energy | None = None,
        game: Game | None = None,
        learning: Learning | None = None,
        accelerator: Accelerator | None = None,
    ):
        self.game, self.learning = game or Game(), learning or Learning()
        self.accelerator = accelerator or Accelerator()
        self.energy, self.sampler, self.value = energy, sampler, value
        for player in filter(None, (energy, sampler, value)):
            player.to(self.accelerator.device)
        players = {"energy": energy, "value": value, "sampler": sampler}
        self.networks: dict[str, Any] = {}  # what learns, as accelerate wraps it
        self.optimizers: dict[str, Any] = {}
        for name, player in players.items():
            if player is not None and any(p.requires_grad for p in player.parameters()):
                optim = optimizer(player, self.learning, self._rate(name))
                self.networks[name], self.optimizers[name] = self.accelerator.prepare(player, optim)
        self.ema = AveragedModel(sampler, multi_avg_fn=get_ema_multi_avg_fn(self.learning.ema))  # type: ignore[no-untyped-call]
        self.s2: Tensor | None = None
        self.rounds = 0

    def round(self, batch: Tensor | None, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """One round of the game.

        batch: data as the dataset gives them, or None for a known density; shape: (B,*S) of the rollout.
        Returns scalars to log, averaged over processes.

        Raises:
            FloatingPointError: a loss is not finite
        """
        data, cond = (None, None) if batch is None else self.sampler.encode(batch)
        J = self.cost_to_go(cond)
        xs = rollout(self.sampler, J, shape, cond=cond)
        log: dict[str, Tensor] = {}
        if data is not None and "energy" in self.networks:
            log |= self.learn_energy(data, xs[-1], cond)
        if self.rounds >= self.game.warmup:
            s2 = self.learn_velocity(xs)
            log |= self.learn_value(J, xs, s2, cond)
            log |= self.learn_policy(J, xs, s2, cond)
            self.ema.update_parameters(self.sampler)
        self.rounds += 1
        return self._checked(log)

    def cost_to_go(self, cond: Tensor | None = None) -> CostToGo:
        """``J(x, t)``: the value at t < T, the energy at T; t (B,) holds one step for the whole batch."""

        def J(x: Tensor, t: Tensor) -> Tensor:
            player = self.energy if self.value is None or t[0] == self.sampler.steps else self.value
            return player(x, t, cond)  # type: ignore[no-any-return]

        return J

    def learn_energy(self, data: Tensor, sample: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.1). One forward pass over both batches, so that DDP sees one."""
        both = torch.cat([data, sample])
        end = torch.full((len(both),), self.sampler.steps, device=both.device)
        e_data, e_sample = self.networks["energy"](both, end, None if cond is None else torch.cat([cond, cond])).split(
            [len(data), len(sample)]
        )
        self._descend("energy", gcd_loss(e_data, e_sample, self.game.gamma))
        return {"e_data": e_data.detach().mean(), "e_sample": e_sample.detach().mean()}

    def learn_value(self, J: CostToGo, xs: Tensor, s2: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.3): temporal difference, from the last step back to the first."""
        player = "energy" if self.value is None else "value"
        losses = []
        for x, t, x_next in transitions(xs) if player in self.networks else ():
            with torch.no_grad():
                target = self.target(J, x, t, x_next, s2, cond)
            loss = (self.networks[player](x, t, cond) - target).square().mean()
            self._descend(player, loss)
            losses.append(loss.detach())
        return {"value_loss": torch.stack(losses).mean()} if losses else {}

    def target(self, J: CostToGo, x: Tensor, t: Tensor, x_next: Tensor, s2: Tensor, cond: Tensor | None) -> Tensor:
        """What the value at (x, t) should be: ``J(x_next, t+1)`` plus the time cost or the running cost. (B,)."""
        g, T = self.game, self.sampler.steps
        if g.time_cost is not None:
            return J(x_next, t + 1) + g.time_cost * time_cost(t, T)
        return soft_q(J, x, t, self.sampler(x, t, J, cond), x_next, s2[t[0]], g.tau1, g.tau2)

    def learn_policy(self, J: CostToGo, xs: Tensor, s2: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.4): one transition at a time, through a frozen value; memory does not grow with T."""
        losses = []
        with frozen(*filter(None, (self.energy, self.value))):
            for x, t, _ in transitions(xs):
                step: Transition = self.networks["sampler"](x, t, J, cond)
                loss = soft_q(J, x, t, step, step.sample(), s2[t[0]], self.game.tau1, self.game.tau2).mean()
                self._descend("sampler", loss)
                losses.append(loss.detach())
        return {"policy_loss": torch.stack(losses).mean()}

    def learn_velocity(self, xs: Tensor) -> Tensor:
        """MATH (3.5); the first rollout sets it. Returns s_t^2, (T,)."""
        moved = self.accelerator.reduce(mean_square_steps(xs), "mean")
        self.s2 = moved if self.s2 is None else self.s2.lerp(moved, 1 - self.game.avr)
        return self.s2

    def state_dict(self) -> dict[str, Any]:
        """What accelerate does not save by itself: the adaptive velocity and the number of rounds played."""
        return {"s2": self.s2, "rounds": self.rounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.s2 = None if state["s2"] is None else state["s2"].to(self.accelerator.device)
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
