"""Drawing: a sampler as a ``Draw``, and what its noise comes from.

Sample i of seed s takes its noise from a generator seeded by (s, i) alone, as in EDM's code (Karras et al. 2022), so
that neither the size of batches nor the number of processes changes it. What takes one generator alone, as chains do,
has chunks of ``CHUNK`` samples under a seed of their own instead, with the same effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import CostToGo, Draw, Noise, Sampler
from dxmi.api.evaluator import SeededDraw
from dxmi.api.noise import CHUNK, generators
from dxmi.chains.rollout import walk

PER_SAMPLE = "SeedSequence(seed, index) of each sample"


PER_CHUNK = f"seed*1000003 + chunk, of each {CHUNK} samples"


class SamplerDraw:
    """A sampler as a ``Draw`` at conditions of its choice.

    Args:
        sampler: what draws
        shape: S of one item of the data
        cost: may be missing where the sampler's steps do not use it
        times: how often the chain runs, each time from where it ended
    """

    def __init__(self, sampler: Sampler, shape: tuple[int, ...], cost: CostToGo | None = None, times: int = 1):
        self.sampler, self.shape, self.times = sampler, shape, times
        self.cost = cost or (lambda x, t: x.new_zeros(len(x)))
        self.per_sample = sampler.per_sample

    def __call__(self, n: int, steps: int, generator: Any) -> Tensor:
        """(n,*S); the steps are the sampler's own."""
        end: Tensor | None = None
        cond = self.sampler.conditions(n, generator)
        for _ in range(self.times):
            shape = (n, *self.sampler.state_shape(self.shape))
            for x in walk(self.sampler, self.cost, shape, generator, cond, start=end):
                last = x
            end = last
        return self.sampler.decode(last)

    def labels(self, n: int, generator: Any) -> Tensor | None:
        """The labels (n,) that it draws at from this noise; None where it takes none."""
        return None if self.sampler.classes is None else self.sampler.conditions(n, generator)


def in_batches(draw: Draw, n: int, steps: int, noise: Noise, size: int) -> Iterator[Tensor]:
    """N samples in parts (b,*S), on the CPU: of a list of generators ``size`` at a time, of a single one at once."""
    if isinstance(noise, Sequence):
        for part in (noise[k : k + size] for k in range(0, n, size)):
            yield draw(len(part), steps, part).cpu()
    else:
        yield draw(n, steps, noise).cpu()


def noise_of_chunk(draw: Draw, seed: int, i: int, n: int) -> Noise:
    """What n samples of chunk i take their noise from."""
    if per_sample(draw):
        return generators(seed, range(i * CHUNK, i * CHUNK + n))
    return Generator().manual_seed(seed * 1_000_003 + i)


def first_samples(draws: Sequence[Draw], n: int, steps: int, seed: int, size: int) -> list[Tensor]:
    """N samples (n,*S) of each, for pictures: all from the same noise, as evaluators have it where each can."""
    own, samples = all(map(per_sample, draws)), []
    for draw in draws:
        noise = generators(seed, range(n)) if own else Generator().manual_seed(seed)
        samples.append(torch.cat([*in_batches(draw, n, steps, noise, size)]))
    return samples


def per_sample(draw: Draw) -> bool:
    """Whether it takes a list of generators, one for each sample."""
    return isinstance(draw, SeededDraw) and draw.per_sample


def noise_rule(draw: Draw) -> str:
    """What its samples' generators are seeded by, for stamps."""
    return PER_SAMPLE if per_sample(draw) else PER_CHUNK
