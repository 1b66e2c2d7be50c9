"""Where a round's chains start, and how they run."""

from __future__ import annotations

import torch
from torch import Tensor

from dxmi.api import CostToGo, GaussianSampler
from dxmi.errors import require
from dxmi.objectives import rollout, walk
from dxmi.players import Players


class Rollouts(Players):
    """Players whose sampler runs from noise, from data or from where its chains ended before (``game.start``)."""

    def play(self, J: CostToGo, shape: tuple[int, ...], data: Tensor | None, cond: Tensor | None) -> Tensor:
        """The rollout xs (T+1,B,*S); of a chain that cannot learn the samples alone, (1,B,*S)."""
        from_data = data if self.game.start == "data" else None
        if not isinstance(self.sampler, GaussianSampler):
            persistent = self.game.start == "chains"
            return (self.go_on(J, shape, cond) if persistent else self.end(J, shape, cond, from_data))[None]
        start = None if from_data is None else self.sampler.perturb(from_data)
        shape = shape if start is None else tuple(start.shape)
        return rollout(self.sampler, J, shape, cond=cond, start=start, explore=self.game.explore)

    def go_on(self, J: CostToGo, shape: tuple[int, ...], cond: Tensor | None) -> Tensor:
        """Some of the persistent chains, chosen at random, from where they were, (B,*S).

        Raises:
            ConfigError: there are fewer than a batch
        """
        require(self.game.chains >= shape[0], f"game.chains: {self.game.chains} do not fill a batch of {shape[0]}")
        if self.chains is None:
            self.chains = self.sampler.initial((self.game.chains, *shape[1:]))
        rows = torch.randperm(len(self.chains), device=self.chains.device)[: shape[0]]
        start = self.chains[rows]
        if self.game.reinit:
            again = torch.rand(len(rows), device=rows.device) < self.game.reinit
            start[again] = self.sampler.initial(tuple(start.shape))[again]
        end = self.end(J, shape, cond, start)
        self.chains[rows] = end
        return end

    def end(self, J: CostToGo, shape: tuple[int, ...], cond: Tensor | None, start: Tensor | None) -> Tensor:
        """The last states (B,*S) of chains, no others kept."""
        shape = shape if start is None else tuple(start.shape)
        for x in walk(self.sampler, J, shape, cond=cond, start=start):
            end = x
        return end
