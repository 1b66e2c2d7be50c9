"""A persistent buffer of the states that chains end in, from which values learn off the sampler's own path."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dxmi.api import Cost, Energy
from dxmi.chains import walk
from dxmi.config import ReplayConfig


class ReplayBuffer:
    """The states themselves, (n,*S), at most ``size``."""

    def __init__(self, settings: ReplayConfig, energy: Energy):
        self.settings, self.energy = settings, energy
        self.states: Tensor | None = None
        self.energies: Tensor | None = None

    @torch.no_grad()
    def keep(self, states: Tensor) -> None:
        """Take in states (n,*S) of finite energy; the oldest make room."""
        energies = self.energy(states)
        finite = energies.isfinite()
        states, energies = states[finite], energies[finite]
        if self.states is not None and self.energies is not None:
            states, energies = torch.cat([self.states, states]), torch.cat([self.energies, energies])
        self.states, self.energies = states[-self.settings.size :], energies[-self.settings.size :]

    def keep_ends(self, ends: Tensor) -> None:
        """Take in where the sampler's own chains ended, carried on by ``refine``."""
        chain = self.settings.refine
        if chain is not None:
            for x in walk(chain, Cost(self.energy, None, chain.steps), tuple(ends.shape), start=ends):
                ends = x
        self.keep(ends)

    def draw(self, n: int) -> Tensor:
        """N of the states (n,*S), with replacement, those of low energy more often if ``priority`` says so."""
        assert self.states is not None and self.energies is not None
        if not self.settings.priority:
            return self.states[torch.randint(len(self.states), (n,), device=self.states.device)]
        shares = (-self.settings.priority * self.energies).softmax(0)
        return self.states[torch.multinomial(shares, n, replacement=True)]

    def state_dict(self) -> dict[str, Any]:
        """The states and their energies."""
        return {"states": self.states, "energies": self.energies}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of ``state_dict``."""
        for name, kept in state.items():
            setattr(self, name, None if kept is None else kept.to(device))
