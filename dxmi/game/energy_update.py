"""The energy's part of a round."""

from __future__ import annotations

import torch
from torch import Tensor

from dxmi.config.game import GameConfig
from dxmi.game.energy_losses import energy_loss
from dxmi.game.players import Players
from dxmi.game.state import State, means


class EnergyWatch:
    """A known density stays as it is: its mean at the samples is logged alone."""

    def __init__(self, players: Players):
        self.players = players

    @torch.no_grad()
    def __call__(self, state: State) -> dict[str, Tensor]:
        """``e_sample``; a path or two may run away before the value knows better, and do not count."""
        energies = self.players.energy(state.xs[-1])
        return {"e_sample": energies[energies.isfinite()].mean()}


class EnergyUpdate(EnergyWatch):
    """MATH (3.1) or another loss of data against samples; where a round has no data, the energy stays as it is."""

    def __init__(self, game: GameConfig, players: Players):
        super().__init__(players)
        self.game = game

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``e_data``, ``e_sample``, ``energy_size`` and ``energy_gradient``."""
        return super().__call__(state) if state.data is None else self.learn(state.data, state.xs[-1], state.cond)

    def learn(self, data: Tensor, sample: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """``game.energy_steps`` steps on batches (B,*S)."""
        return means([self.step(data, sample, cond, i) for i in range(self.game.energy_steps)])

    def step(self, data: Tensor, sample: Tensor, cond: Tensor | None, i: int) -> dict[str, Tensor]:
        """The i-th step of the optimiser in a round."""
        both = torch.cat([data, sample])
        both = both + self.game.noise * torch.randn_like(both)
        end = torch.full((len(both),), self.players.sampler.steps, device=both.device)
        told = end, None if cond is None else torch.cat([cond, cond])
        network = self.players.networks["energy"]
        loss, e = energy_loss(self.game, lambda x: network(x, *told), both, len(data), i)
        gradient = self.players.descend("energy", loss)
        log = {"e_data": e[: len(data)].mean(), "e_sample": e[len(data) :].mean()}
        return {**log, "energy_size": e.abs().mean(), "energy_gradient": gradient}
