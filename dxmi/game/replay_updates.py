"""The value's part of a round at noised states of the replay buffer (MATH 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import torch
from torch import Tensor

from dxmi.api import Marginals, gradient_of
from dxmi.api.noise import per_row
from dxmi.game.objectives import mixing_share
from dxmi.game.players import Players
from dxmi.game.replay_buffer import ReplayBuffer
from dxmi.game.state import State, means
from dxmi.game.targets import RedrawnTarget


class Noised(NamedTuple):
    """Kept states that the sampler's noising chain has carried to steps of their own."""

    x: Tensor
    """(n,*S) ``alpha*end + sigma*eps``"""
    t: Tensor
    """(n,) their steps"""
    end: Tensor
    """(n,*S) the kept states"""
    alpha: Tensor
    """(n,1,...)"""
    sigma: Tensor
    """(n,1,...)"""


class ReplayUpdate(ABC):
    """The buffer takes in the sampler's ends where it is due, and the value descends a loss at noised kept states."""

    def __init__(self, players: Players, buffer: ReplayBuffer):
        self.players, self.buffer = players, buffer

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``replay_loss``."""
        settings, logs = self.buffer.settings, []
        if settings.every is not None and self.players.rounds % settings.every == 0:
            self.buffer.keep_ends(state.xs[-1])
        for _ in range(settings.steps):
            loss = self.loss(state, self.noised(settings.batch))
            self.players.descend("value", loss)
            logs.append({"replay_loss": loss.detach()})
        return means(logs)

    def noised(self, n: int) -> Noised:
        """N states of the buffer at random steps."""
        sampler, end = self.players.sampler, self.buffer.draw(n)
        t = torch.randint(sampler.steps, (len(end),), device=end.device)
        alpha, sigma = (per_row(part, end) for part in cast(Marginals, sampler).marginal(t))
        return Noised(alpha * end + sigma * torch.randn_like(end), t, end, alpha, sigma)

    @abstractmethod
    def loss(self, state: State, kept: Noised) -> Tensor:
        """What the value descends, a scalar."""


class ReplayTemporalDifference(ReplayUpdate):
    """MATH (4.2): the value regresses on successors redrawn from the sampler."""

    def __init__(self, players: Players, buffer: ReplayBuffer, target: RedrawnTarget):
        super().__init__(players, buffer)
        self.target = target

    def loss(self, state: State, kept: Noised) -> Tensor:
        """The mean squared difference, a scalar."""
        with torch.no_grad():
            target = self.target.at(state.J, kept.x, kept.t)
        loss: Tensor = (self.players.networks["value"](kept.x, kept.t) - target).square().mean()
        return loss


class ReplayScore(ReplayUpdate):
    """MATH (4.5): the value's gradient against two unbiased estimates of it, mixed at each step for least variance."""

    def loss(self, state: State, kept: Noised) -> Tensor:
        """The mean squared difference, weighed by sigma, a scalar."""
        x, t, end, alpha, sigma = kept
        sampler = self.players.sampler
        x.requires_grad_()
        total = self.players.networks["value"](x, t).sum()
        (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        by_noise = sampler.tau * (x.detach() - alpha * end) / sigma**2
        by_energy = gradient_of(self.players.cost_to_go(), end, torch.full_like(t, sampler.steps))[1] / alpha
        state.shares, share = mixing_share(state.shares, t, sampler.steps, by_noise, by_energy, gradient.detach())
        target = by_energy + share.view_as(sigma) * (by_noise - by_energy)
        # The gradient does not see every parameter, such as a constant, and DDP waits for all of them.
        loss: Tensor = (sigma * (gradient - target)).square().mean() + 0 * total
        return loss
