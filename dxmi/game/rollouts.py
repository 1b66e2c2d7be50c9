"""Where a round's chains start, and how they run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dxmi.api import CostToGo, GaussianSampler, Transition
from dxmi.api.errors import require
from dxmi.chains.rollout import rollout, walk
from dxmi.game.players import Players


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
        require(self.game.chains >= shape[0], "game.chains", f"{self.game.chains} do not fill a batch of {shape[0]}")
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

    def transitions(
        self, J: CostToGo, xs: Tensor, data: Tensor | None, cond: Tensor | None, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of (x_t, t, x_{t+1}) that value and policy learn from in this round.

        A share ``game.noised`` of their states are not the rollout's but data that the sampler's noising chain has
        carried to step t: what the rollouts have lost, such as a mode, is then still seen from there (ours; MATH 3 (ii)
        tells what happens without).
        """
        share = 0 if data is None else round(self.game.noised * len(data))
        for x, t, x_next in transitions(xs, first) if self.game.sweep else random_transitions(xs, first):
            if data is not None and share:
                alpha, sigma = (part.view(-1, *[1] * (x.ndim - 1)) for part in self.policy.marginal(t[:share]))
                noised = alpha * data[:share] + sigma * torch.randn_like(data[:share])
                with torch.no_grad():
                    step: Transition = self.policy(noised, t[:share], J, None if cond is None else cond[:share])
                x, x_next = torch.cat([noised, x[share:]]), torch.cat([step.sample(), x_next[share:]])
            yield x, t, x_next


def transitions(xs: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(x_t, t, x_{t+1}) of a rollout, from the last step back to ``first``, so that values travel from the energy."""
    for k in reversed(range(first, len(xs) - 1)):
        yield xs[k], torch.full((xs.shape[1],), k, device=xs.device), xs[k + 1]


def random_transitions(xs: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One transition of each chain of a rollout, at a step drawn from first..T-1: (x_t (B,*S), t (B,), x_{t+1} (B,*S)).

    Yields once, or never if there is no such step.
    """
    steps, chains = len(xs) - 1, torch.arange(xs.shape[1], device=xs.device)
    if first < steps:
        t = torch.randint(first, steps, chains.shape, device=xs.device)
        yield xs[t, chains], t, xs[t + 1, chains]
