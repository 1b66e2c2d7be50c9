"""Samples of a known density to hold others against. ``dxmi.api`` exports ``DensitySamples``."""

from __future__ import annotations

from torch import Generator, Tensor, randperm
from torch.utils.data import Dataset

from dxmi.energy import Energy
from dxmi.errors import ConfigError


class DensitySamples(Dataset[Tensor]):
    """A known density and samples of it (n,*S), one event (*S) an item.

    They are exact draws, or with ``exact`` False stored ones from long chains.
    """

    def __init__(self, energy: Energy, samples: Tensor, exact: bool = True):
        self.energy, self.samples, self.exact = energy, samples, exact

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        return self.samples[index]


def has_exact_samples(energy: Energy) -> bool:
    """Whether the density can be drawn from exactly."""
    try:
        energy.sample(1, Generator().manual_seed(0))
    except NotImplementedError:
        return False
    return True


def reference_samples(energy: Energy, n: int, generator: Generator | None = None) -> DensitySamples:
    """N exact draws from a known density; else up to n of its stored samples, at random and each at most once.

    Raises:
        ConfigError: it has neither
    """
    if has_exact_samples(energy):
        return DensitySamples(energy, energy.sample(n, generator))
    try:
        stored = energy.reference()
    except NotImplementedError as error:
        raise ConfigError(
            f"energy: {type(energy).__name__} has neither exact nor stored samples to compare others with"
        ) from error
    return DensitySamples(energy, stored[randperm(len(stored), generator=generator)[:n]], exact=False)
