"""The data drawn again: what a figure would be if the samples were the reference's own images, drawn at random."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from dxmi.api import Samples
from dxmi_plugins.evaluators.fidelity.frechet import Gaussian, Moments
from dxmi_plugins.evaluators.fidelity.scores import SEED


class Resampled(NamedTuple):
    """Some draws of n of the reference's images each, with replacement; always the same ones."""

    n: int
    draws: int

    def __str__(self) -> str:
        """As files of the cache are called."""
        return f"floor{self.n}x{self.draws}"

    def rows(self, size: int) -> list[Tensor]:
        """Which of ``size`` images are drawn: (n,) of each draw."""
        generator = Generator().manual_seed(SEED)
        return [torch.randint(size, (self.n,), generator=generator) for _ in range(self.draws)]

    def among(self, rows: Tensor, size: int) -> Tensor:
        """Those of ``rows`` (k,) that are in any draw from ``size`` images."""
        return rows[torch.isin(rows, torch.cat(self.rows(size)))]


class KeptResamples:
    """The moments of each draw, as features come: ``draws * D^2`` numbers, and no features.

    Args:
        dimension: D
        size: number of the reference's images
        drawn: how many draws of how many
    """

    def __init__(self, dimension: int, size: int, drawn: Resampled):
        self.moments = [Moments(dimension) for _ in range(drawn.draws)]
        self.times = [torch.bincount(rows, minlength=size) for rows in drawn.rows(size)]

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:
        """Each image as often as it was drawn."""
        for moments, times in zip(self.moments, self.times, strict=True):
            moments.update(features, times[rows])

    def reduced(self, samples: Samples) -> list[Gaussian]:
        """Each draw's, over all processes."""
        return [moments.reduced(samples.reduce).gaussian() for moments in self.moments]
