"""Evaluators, and the samples that they measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api.noise import CHUNK


class Evaluator(Protocol):
    """Compares samples with a reference. One that ``OffersMetrics`` or ``RanksHigher`` tells more of its figures."""

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n) -> (n,*S)``; the reference yields one event (*S) an item and knows its ``len``.

        dxmi hands in ``Samples``, which have more to offer, as batches and labels: ``as_samples(draw)`` is that of any
        callable. The reference of a known density is a ``DensitySamples``, of labelled items a ``Labelled``.
        """

    def stamp(self) -> dict[str, Any]:
        """What made the numbers: implementation, version, extractor, hashes. JSON types only."""


@runtime_checkable
class OffersMetrics(Protocol):
    """An evaluator with an option ``metrics``."""

    METRICS: tuple[str, ...]
    """what it takes; a run's proxy is the first"""


@runtime_checkable
class RanksHigher(Protocol):
    """An evaluator some of whose figures are better when they are higher."""

    HIGHER: tuple[str, ...]
    """how the names of these begin"""


@runtime_checkable
class SeededDraw(Protocol):
    """A ``Draw`` that says what it takes its noise from; others take one generator."""

    per_sample: bool
    """whether it takes a list of n generators as well, one for each sample"""


@runtime_checkable
class LabelledDraw(Protocol):
    """A ``Draw`` that says what it draws at."""

    def labels(self, n: int, generator: Any) -> Tensor | None:
        """The labels (n,) that it draws at from this noise; None where it takes none."""


@runtime_checkable
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


@runtime_checkable
class Counted(Protocol):
    """Samples that say how many of them were asked for."""

    drawn: int
    """at most, of those that are there"""


class HeldSamples:
    """Events that every process makes all of: those of a callable ``draw(n) -> (n,*S)``, drawn once."""

    def __init__(self, draw: Callable[[int], Tensor], labels: Tensor | None = None):
        self.draw, self.known, self.drawn = cache(draw), labels, 0

    def __call__(self, n: int) -> Tensor:
        """All events (n,*S)."""
        events = self.draw(n)
        self.drawn = max(self.drawn, len(events))
        return events

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
    return draw if isinstance(draw, Samples) else HeldSamples(draw)
