"""Where a round's chains start, and how they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Generator, Tensor

from dxmi.api import CostToGo, GaussianSampler, Marginals, Perturbs, Sampler, Transition, randn
from dxmi.api.errors import require
from dxmi.api.noise import per_row
from dxmi.chains import rollout, walk
from dxmi.config import GameConfig
from dxmi.game.state import State


class Rollouts:
    """A sampler's chains from noise, from data or from where they ended before (``game.start``)."""

    def __init__(self, sampler: Sampler, game: GameConfig | None = None):
        self.sampler, self.game = sampler, game or GameConfig()
        self.chains: Tensor | None = None  # persistent ones of a sampler that cannot learn, (chains,*S)

    def play(self, J: CostToGo, shape: tuple[int, ...], data: Tensor | None, cond: Tensor | None) -> Tensor:
        """The rollout xs (T+1,B,*S); of a chain that cannot learn the samples alone, (1,B,*S)."""
        from_data = data if self.game.start == "data" else None
        if not isinstance(self.sampler, GaussianSampler):
            persistent = self.game.start == "chains"
            return (self.go_on(J, shape, cond) if persistent else self.end(J, shape, cond, from_data))[None]
        start = None if from_data is None else perturb(self.sampler, from_data)
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

    def transitions(self, state: State, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of (x_t, t, x_{t+1}) that value and policy learn from in this round.

        A share ``game.noised`` of their states are not the rollout's but data that the sampler's noising chain has
        carried to step t: what the rollouts have lost, such as a mode, is then still seen from there (ours; MATH 3 (ii)
        tells what happens without).
        """
        data, cond = state.data, state.cond
        share = 0 if data is None else round(self.game.noised * len(data))
        for x, t, x_next in transitions(state.xs, first) if self.game.sweep else random_transitions(state.xs, first):
            if data is not None and share:
                marginal = cast(Marginals, self.sampler).marginal(t[:share])
                alpha, sigma = (per_row(part, x) for part in marginal)
                noised = alpha * data[:share] + sigma * torch.randn_like(data[:share])
                with torch.no_grad():
                    step: Transition = self.sampler(noised, t[:share], state.J, None if cond is None else cond[:share])
                x, x_next = torch.cat([noised, x[share:]]), torch.cat([step.sample(), x_next[share:]])
            yield x, t, x_next


def perturb(sampler: Sampler, x: Tensor, generator: Generator | None = None) -> Tensor:
    """Samples x_T (B,*S) carried to x_0 (B,*S) by the noising chain: where rollouts from data start.

    At once where the chain's marginals are known, else as the sampler itself knows how.
    """
    if isinstance(sampler, Perturbs):
        return sampler.perturb(x, generator)
    alpha, sigma = cast(Marginals, sampler).marginal(torch.zeros(len(x), dtype=torch.long, device=x.device))
    return per_row(alpha, x) * x + per_row(sigma, x) * randn(x.shape, x, generator)


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
