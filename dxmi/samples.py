"""What evaluators draw from, and noise that is each sample's own. ``dxmi.api`` exports what plugins need of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Protocol, cast

import numpy as np
import torch
from torch import Generator, Tensor

CHUNK = 256
"""events in a file or, of what takes one generator alone, under one seed; fixed, so that the images are too"""

Noise = Generator | Sequence[Generator] | None
"""Where noise comes from: one generator, one for each of B samples (its ``row`` is the sample's), or torch's own."""


class Own(Generator):
    """Noise of one sample alone."""

    row: int
    """its index, for what samples take in turn"""


def generator(*key: int) -> Generator:
    """Noise that depends on these whole numbers alone: what NumPy's ``SeedSequence`` makes of them is the seed."""
    return seeded(Generator(), *key)


def seeded(noise: Generator, *key: int) -> Generator:
    """``noise``, from where these numbers say."""
    return noise.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


def generators(seed: int, rows: Sequence[int]) -> list[Own]:
    """One for each sample, from (seed, its index): images so depend on neither batches nor processes."""
    found = [Own() for _ in rows]
    for own, row in zip(found, rows, strict=True):
        own.row = row
        seeded(own, seed, row)
    return found


def turns(n: int, noise: Noise) -> Tensor:
    """Which sample each of n is, (n,) long, for what samples take in turn: batches go on where the last one ended."""
    if isinstance(noise, Sequence):
        return torch.tensor([getattr(own, "row", row) for row, own in enumerate(noise)])
    return torch.arange(n)


def randn(shape: Sequence[int], like: Tensor, generator: Noise = None) -> Tensor:
    """Standard normal noise (B,*S) with the dtype and device of ``like``, drawn where the generator lives.

    A CPU generator so gives the same noise on every device, and a list of B of them each sample its own.
    """
    if isinstance(generator, Sequence):
        each = [randn((1, *shape[1:]), like, one) for one in generator]
        return torch.cat(each).reshape(tuple(shape))
    device = like.device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=like.dtype).to(like.device)


class Samples(Protocol):
    """N events to be measured, the same ones each time: ``samples(n)`` has all of them on every process.

    Batches keep memory flat: each process goes through its own rows, and sums or features are put together at the end.
    A stored set may have fewer than n; then these are all.
    """

    def __call__(self, n: int) -> Tensor:
        """All events (n,*S), on the CPU of every process."""

    def rows(self, n: int) -> Tensor:
        """Which of n events are this process's, (k,) long, k >= 0; those that are there where they are stored."""

    def share(self, n: int) -> Tensor:
        """Which of n other items, as of a reference, are for this process to read: (k,) long, k >= 0."""

    def batches(self, n: int) -> Iterator[Tensor]:
        """The events of ``rows(n)``, in that order, some (b,*S) at a time, on the CPU."""

    def labels(self, n: int) -> Tensor | None:
        """What class each of n events (all of them) was drawn at, (n,) long; None where nothing was asked for."""

    def gather(self, x: Tensor) -> Tensor:
        """Every process's x (k,*S), k its own, one after the other: (sum of k,*S) on every process."""

    def reduce(self, x: Tensor) -> Tensor:
        """The sum over processes of x, of one shape on all."""


class Held:
    """Events that every process makes all of: those of a callable ``draw(n) -> (n,*S)``, drawn once."""

    def __init__(self, draw: Callable[[int], Tensor], labels: Tensor | None = None):
        self.draw, self.known, self.drawn = cache(draw), labels, 0

    def __call__(self, n: int) -> Tensor:
        """All events (n,*S)."""
        found = self.draw(n)
        self.drawn = max(self.drawn, len(found))
        return found

    def rows(self, n: int) -> Tensor:
        """All that there are."""
        return torch.arange(len(self(n)))

    def share(self, n: int) -> Tensor:
        """All of them: every process measures alone."""
        return torch.arange(n)

    def batches(self, n: int) -> Iterator[Tensor]:
        """All of them, a chunk at a time."""
        yield from torch.split(self(n), CHUNK)

    def labels(self, n: int) -> Tensor | None:
        """The first n labels, (n,)."""
        return None if self.known is None else self.known[:n]

    def gather(self, x: Tensor) -> Tensor:
        """``x``: every process has all."""
        return x

    def reduce(self, x: Tensor) -> Tensor:
        """``x``: every process has all."""
        return x


def as_samples(draw: Callable[[int], Tensor]) -> Samples:
    """``draw`` if it is such samples, else a callable ``draw(n) -> (n,*S)`` made into them."""
    return cast(Samples, draw) if hasattr(draw, "batches") else Held(draw)
