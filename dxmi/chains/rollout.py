"""Running a sampler's T steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from dxmi.api import CostToGo, KnownStart, Sampler, Transition


@torch.no_grad()
def walk(
    sampler: Sampler,
    cost_to_go: CostToGo,
    shape: tuple[int, ...],
    generator: Generator | None = None,
    cond: Tensor | None = None,
    start: Tensor | None = None,
    explore: float = 1.0,
) -> Iterator[Tensor]:
    """x_0, ..., x_T of B chains, one state (B,*S) after the other and without gradients; ``start`` is x_0 if given.

    Without ``cond`` the sampler chooses the conditions, where it has some.
    ``explore`` scales the noise of a Gaussian sampler's start and steps (MATH 4, exploration).
    """
    cond = sampler.conditions(shape[0], generator) if cond is None else cond
    x = sampler.initial(shape, generator) if start is None else start
    law: Transition
    if explore != 1 and start is None and isinstance(sampler, KnownStart):  # not so one that is uniform on a sphere
        law = sampler.start_law(x)
        x = law._replace(std=explore * law.std).sample(generator)
    yield x
    for k in range(sampler.steps):
        t = torch.full((shape[0],), k, device=x.device)
        if explore == 1:
            x = sampler.step(x, t, cost_to_go, generator, cond)
        else:
            law = sampler(x, t, cost_to_go, cond)
            x = law._replace(std=explore * law.std).sample(generator)
        yield x


def rollout(
    sampler: Sampler,
    cost_to_go: CostToGo,
    shape: tuple[int, ...],
    generator: Generator | None = None,
    cond: Tensor | None = None,
    start: Tensor | None = None,
    explore: float = 1.0,
) -> Tensor:
    """One trajectory for each of B chains: shape (B,*S) -> xs (T+1,B,*S), without gradients."""
    return torch.stack(list(walk(sampler, cost_to_go, shape, generator, cond, start, explore)))
