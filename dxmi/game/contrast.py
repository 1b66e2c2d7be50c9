"""The value by contrast: one energy that is told the noise level learns at every node (MATH 3.7)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from dxmi.api import Energy, NoisedData, noise_level
from dxmi.api.noise import per_row
from dxmi.api.schedule import PURE_NOISE
from dxmi.config.game import GameConfig
from dxmi.game.energy_losses import energy_loss
from dxmi.game.players import Players
from dxmi.game.state import State, means

PUREST = 990.0
"""the highest noise level that states are carried to: above it there is nothing left to tell apart"""


class Nodes:
    """States at the nodes of a sampler's chain, as the energy sees them.

    Args:
        sampler: whose chain it is
        noise: std of the noise that states of the last node are shown with, in units of the data
        renoise: share of the states that are carried on to a random higher level before they are shown
    """

    def __init__(self, sampler: NoisedData, noise: float = 0.0, renoise: float = 0.0):
        self.sampler, self.noise, self.renoise = sampler, noise, renoise
        noisiest = noise_level(*sampler.at_level(torch.full((1,), PURE_NOISE)))  # what is above it, it does not know
        self.highest = min(PUREST, float(noisiest))

    @property
    def last(self) -> int:
        """The node of the samples, T."""
        return len(self.sampler.noise_levels) - 1

    def weights(self, kind: Literal["gain", "equal"]) -> Tensor:
        """Of the transitions, (T,), with mean 1: the inverse of their gains (MATH 3.9), or equal."""
        gains = self.sampler.gains
        weights = 1 / gains if kind == "gain" else torch.ones_like(gains)
        return weights / weights.mean()

    def noised(self, data: Tensor, k: int) -> Tensor:
        """Data (B,*S) with the noise of node k."""
        alpha, sigma = self.sampler.at_level(self.sampler.noise_levels[k].expand(len(data)))
        return per_row(alpha, data) * data + per_row(sigma, data) * torch.randn_like(data)

    def seen(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """States x (B,*S) of node k -> what the energy is shown of them, and the noise level (B,) that it is told."""
        level = self.sampler.noise_levels[k].expand(len(x)).to(x.dtype)
        if k == self.last and self.noise:
            x = x + self.noise * torch.randn_like(x)
        if not self.renoise:
            return x, level
        chosen = torch.rand(len(x), device=x.device) < self.renoise
        higher = level + torch.rand_like(level) * (self.highest - level).clamp_min(0)
        return torch.where(per_row(chosen, x), self.carried(x, level, higher), x), torch.where(chosen, higher, level)

    def carried(self, x: Tensor, level: Tensor, higher: Tensor) -> Tensor:
        """States x (B,*S) at ``level`` (B,) -> the same at higher ones: ``r*x + sqrt(sigma_t^2 - r^2*sigma^2)*eps``.

        With ``r = alpha_t/alpha``: what is data with the noise of ``level`` so becomes data with that of ``higher``.
        """
        (alpha, sigma), (alpha_t, sigma_t) = self.sampler.at_level(level), self.sampler.at_level(higher)
        ratio = alpha_t / alpha
        extra = (sigma_t**2 - (ratio * sigma) ** 2).clamp_min(0).sqrt()
        return per_row(ratio, x) * x + per_row(extra, x) * torch.randn_like(x)


def call(network: Energy, level: Tensor, cond: Tensor | None, x: Tensor) -> Tensor:
    """The energies (B,) of x (B,*S), which comes last, so that ``partial`` can fix the others."""
    return network(x, level, cond)  # type: ignore[no-any-return]


class ContrastUpdate:
    """Data noised to each node against the rollout's states there: the loss that ``game`` names, at every node."""

    def __init__(self, game: GameConfig, players: Players):
        self.game, self.players = game, players
        self.nodes = Nodes(cast(NoisedData, players.sampler), game.noise, game.renoise)

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``e_data`` and ``e_sample`` at the end, ``gap_k`` between them at node k, ``energy_size``, ``_gradient``."""
        return means([self.step(state, i) for i in range(self.game.energy_steps)])

    def step(self, state: State, i: int) -> dict[str, Tensor]:
        """The i-th step of the optimiser in a round; the nodes one after the other, so that memory is that of one."""
        log: dict[str, Tensor] = {}
        log["energy_gradient"] = self.players.descend("energy", self.losses(state, log, i))
        return log

    def losses(self, state: State, log: dict[str, Tensor], i: int = 0) -> Iterator[Tensor]:
        """The energy's loss at each node, whose mean is descended."""
        assert state.data is not None
        network, cond, n = self.players.networks["energy"], state.cond, len(state.data)
        both = None if cond is None else torch.cat([cond, cond])
        for k in range(1, self.nodes.last + 1):
            real, real_level = self.nodes.seen(self.nodes.noised(state.data, k), k)
            drawn, drawn_level = self.nodes.seen(state.xs[k], k)
            level = torch.cat([real_level, drawn_level])
            energy = partial(call, network, level, both)
            loss, e = energy_loss(self.game, energy, torch.cat([real, drawn]), n, i)
            log[f"gap_{k}"] = e[n:].mean() - e[:n].mean()
            log |= {"e_data": e[:n].mean(), "e_sample": e[n:].mean(), "energy_size": e.abs().mean()}
            yield loss / self.nodes.last
