"""DxMI: the min-max game between an energy and a sampler (MATH 3), one round at a time."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import gather_object, send_to_device
from torch import Tensor

from dxmi.api import CostToGo, GaussianSampler, Transition, gradient_of
from dxmi.game.energy_losses import energy_loss, penalised
from dxmi.game.objectives import lambda_returns, mean_square_steps, mixing_share, soft_q, time_cost
from dxmi.game.players import frozen
from dxmi.game.rollouts import Rollouts


class DxMI(Rollouts):
    """The players and one round of the game; ``Players`` tells the arguments."""

    def round(self, data: Tensor | None, shape: tuple[int, ...], cond: Tensor | None = None) -> dict[str, Tensor]:
        """One round of the game.

        data: a batch (B,*S) in the sampler's space, or None for a known density; shape: (B,*S) of the rollout there;
        cond: conditions (B,...) of the batch, at which the rollout draws too.
        Returns scalars to log, averaged over processes.

        Raises:
            FloatingPointError: a loss or its gradient is not finite; that player has not moved
        """
        if data is None:
            cond = self.sampler.conditions(shape[0])
        elif cond is not None:
            shape = tuple(data.shape)  # the last of few data may not fill a batch
        self.set_rates()
        J = self.cost_to_go(cond)
        xs = self.play(J, shape, data, cond)
        log: dict[str, Tensor] = {}
        if data is not None and "energy" in self.networks:
            log |= self.learn_energy(data, xs[-1], cond)
        else:
            with torch.no_grad():  # a path or two may run away before the value knows better
                energies = self.energy(xs[-1])
                log["e_sample"] = energies[energies.isfinite()].mean()
        if isinstance(self.sampler, GaussianSampler):
            s2 = self.learn_velocity(xs)
            log |= self.learn_value(J, xs, s2, data, cond)
            log |= self.learn_from_replay(J, xs)
            self.follow_value()
            if self.rounds >= self.game.warmup:
                log |= self.learn_policy(J, xs, s2, data, cond)
                self.follow_sampler()
            elif self.game.imitate:
                log |= self.learn_imitation(J, xs, data, cond)
                self.follow_sampler()
        self.rounds += 1
        return self.averaged_over_processes(log)

    def learn_energy(self, data: Tensor, sample: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """MATH (3.1) or another loss. One forward pass over both batches, so that DDP sees one."""
        both = torch.cat([data, sample])
        both = (both + self.game.noise * torch.randn_like(both)).requires_grad_(penalised(self.game))
        end = torch.full((len(both),), self.sampler.steps, device=both.device)
        energies = self.networks["energy"](both, end, None if cond is None else torch.cat([cond, cond]))
        gradient = self.descend("energy", energy_loss(self.game, energies, both, len(data)))
        e = energies.detach()
        log = {"e_data": e[: len(data)].mean(), "e_sample": e[len(data) :].mean()}
        return {**log, "energy_size": e.abs().mean(), "energy_gradient": gradient}

    def learn_value(
        self, J: CostToGo, xs: Tensor, s2: Tensor, data: Tensor | None, cond: Tensor | None
    ) -> dict[str, Tensor]:
        """MATH (3.3), (4.2): temporal difference; at t >= 1 unless the start is learned, else nobody descends V_0."""
        player = "energy" if self.value is None else "value"
        if player not in self.networks or (self.buffer is not None and self.buffer.settings.learn == "denoise"):
            return {}
        losses = []
        for _ in range(self.game.value_steps):
            returns = self.returns(J, xs, cond) if self.game.trace else None
            for x, t, x_next in self.transitions(J, xs, data, cond, first=0 if self.policy.value_guided else 1):
                with torch.no_grad():
                    whole = None if returns is None else returns[t, torch.arange(len(t), device=t.device)]
                    target = self.target(J, x, t, x_next, s2, cond) if whole is None else whole
                loss = (self.networks[player](x, t, cond) - target).square().mean()
                self.descend(player, loss)
                losses.append(loss.detach())
        return {"value_loss": torch.stack(losses).mean()} if losses else {}

    def target(self, J: CostToGo, x: Tensor, t: Tensor, x_next: Tensor, s2: Tensor, cond: Tensor | None) -> Tensor:
        """What the value at (x, t) should be: ``J(x_next, t+1)`` plus the time cost or the running cost. (B,)."""
        g, T = self.game, self.sampler.steps
        if self.policy.value_guided:
            step: Transition = self.policy(x, t, J, cond)  # redrawn, since the rollout may have explored
            return self.capped(J(step.sample(), t + 1)) + self.policy.running_cost(x, t, step)
        if g.time_cost is not None:
            return J(x_next, t + 1) + g.time_cost * time_cost(t, T)
        return soft_q(J, x, t, self.sampler(x, t, J, cond), x_next, s2[t], g.tau1, g.tau2)

    @torch.no_grad()
    def returns(self, J: CostToGo, xs: Tensor, cond: Tensor | None) -> Tensor:
        """TD(lambda)'s targets along a rollout of a value-guided sampler, (T,B)."""
        costs, ahead = [], []
        for k in range(self.sampler.steps):
            t = torch.full((xs.shape[1],), k, device=xs.device)
            costs.append(self.policy.running_cost(xs[k], t, self.policy(xs[k], t, J, cond)))
            ahead.append(self.capped(J(xs[k + 1], t + 1)))
        return lambda_returns(torch.stack(costs), torch.stack(ahead), self.game.trace)

    def capped(self, costs: Tensor) -> Tensor:
        """Costs to go as targets have them."""
        return costs if self.game.ceiling is None else costs.clamp(max=self.game.ceiling)

    def learn_from_replay(self, J: CostToGo, xs: Tensor) -> dict[str, Tensor]:
        """The value at noised states of the buffer: temporal difference, or their score."""
        if self.buffer is None:
            return {}
        settings, losses = self.buffer.settings, []
        if settings.every is not None and self.rounds % settings.every == 0:
            self.buffer.keep_ends(xs[-1])
        for _ in range(settings.steps):
            end = self.buffer.draw(settings.batch)
            t = torch.randint(self.sampler.steps, (len(end),), device=end.device)
            alpha, sigma = (part.view(-1, *[1] * (end.ndim - 1)) for part in self.policy.marginal(t))
            x = alpha * end + sigma * torch.randn_like(end)
            if settings.learn == "denoise":
                loss = self.denoising_loss(x, t, end, alpha, sigma)
            else:
                with torch.no_grad():
                    target = self.target(J, x, t, x, torch.empty(0), None)
                loss = (self.networks["value"](x, t) - target).square().mean()
            self.descend("value", loss)
            losses.append(loss.detach())
        return {"replay_loss": torch.stack(losses).mean()}

    def denoising_loss(self, x: Tensor, t: Tensor, end: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The value's gradient against two unbiased estimates of it, mixed at each step for least variance."""
        x.requires_grad_()
        total = self.networks["value"](x, t).sum()
        (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        by_noise = self.sampler.tau * (x.detach() - alpha * end) / sigma**2
        by_energy = gradient_of(self.cost_to_go(), end, torch.full_like(t, self.sampler.steps))[1] / alpha
        self.shares, share = mixing_share(self.shares, t, self.sampler.steps, by_noise, by_energy, gradient.detach())
        target = by_energy + share.view_as(sigma) * (by_noise - by_energy)
        # The gradient does not see every parameter, such as a constant, and DDP waits for all of them.
        loss: Tensor = (sigma * (gradient - target)).square().mean() + 0 * total
        return loss

    def learn_policy(
        self, J: CostToGo, xs: Tensor, s2: Tensor, data: Tensor | None, cond: Tensor | None
    ) -> dict[str, Tensor]:
        """MATH (3.4): single transitions, through a frozen value; memory does not grow with T."""
        losses: list[Tensor] = []
        apart: list[Tensor] = []
        if "sampler" not in self.networks or (self.policy.value_guided and self.game.start == "data"):
            return {}  # a value-guided sampler may have nothing to learn itself, or no value where it starts
        with frozen(*filter(None, (self.energy, self.value, self.target_value))):
            if self.policy.value_guided:
                loss = self.policy.start_loss(J, tuple(xs.shape[1:]))
                self.descend("sampler", loss, wrapped=False)
                return {"start_loss": loss.detach()}
            for x, t, _ in self.transitions(J, xs, data, cond):
                step: Transition = self.networks["sampler"](x, t, J, cond)
                loss = soft_q(J, x, t, step, step.sample(), s2[t], self.game.tau1, self.game.tau2).mean()
                losses.append(loss.detach())
                if self.game.imitate:
                    apart.append(self.policy.imitation(x, t, cond))
                    loss = loss + self.game.imitate * apart[-1]
                self.descend("sampler", loss)
        log = {"imitation": torch.stack(apart).detach().mean()} if apart else {}
        return {"policy_loss": torch.stack(losses).mean(), **log}

    def learn_imitation(self, J: CostToGo, xs: Tensor, data: Tensor | None, cond: Tensor | None) -> dict[str, Tensor]:
        """The sampler from its teacher alone, at the states of its own rollout."""
        losses: list[Tensor] = []
        for x, t, _ in self.transitions(J, xs, data, cond):
            loss = self.policy.imitation(x, t, cond)
            self.descend("sampler", self.game.imitate * loss, wrapped=False)
            losses.append(loss.detach())
        return {"imitation": torch.stack(losses).mean()}

    def learn_velocity(self, xs: Tensor) -> Tensor:
        """MATH (3.5); the first rollout sets it. Returns s_t^2, (T,)."""
        moved = self.accelerator.reduce(mean_square_steps(xs), "mean")
        self.s2 = moved if self.s2 is None else self.s2.lerp(moved, 1 - self.game.avr)
        return self.s2

    def state_dict(self) -> dict[str, Any]:
        """What accelerate does not save by itself: running averages, number of rounds, every process's kept states."""
        own = {"chains": self.chains, "buffer": None if self.buffer is None else self.buffer.state_dict()}
        kept = gather_object([send_to_device(own, "cpu")])  # whoever reads them may have fewer devices, or none
        return {"s2": self.s2, "shares": self.shares, "kept": kept, "rounds": self.rounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``; among more processes than there were, some start from the same states."""
        device = self.accelerator.device
        own = state["kept"][self.accelerator.process_index % len(state["kept"])]
        for name, kept in {"s2": state["s2"], "shares": state["shares"], "chains": own["chains"]}.items():
            setattr(self, name, None if kept is None else kept.to(device))
        if self.buffer is not None:
            self.buffer.load_state_dict(own["buffer"], device)
        self.rounds = state["rounds"]
