"""What a run learns from: images, vectors, or fresh draws of a known density. All give the same batches again."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from dxmi.energy import Energy
from dxmi.errors import ConfigError, require


class Items(Dataset[Tensor]):
    """All items of a dataset in one tensor ``stored`` (N,*S), so that a batch costs an index.

    Items are float (*S). ``name`` and ``fingerprint`` (SHA-256 of what is stored) say what they are.
    """

    def __init__(self, stored: Tensor, name: str):
        self.stored, self.name = stored, name
        self.fingerprint = hashlib.sha256(stored.contiguous().numpy().data).hexdigest()

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Any) -> Tensor:
        return self.stored[index]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """S"""
        return tuple(self.stored.shape[1:])

    def every_other(self, first: int) -> Self:
        """Rows ``first``, ``first + 2``, … alone."""
        return type(self)(self.stored[first::2], self.name)

    def stamp(self) -> dict[str, Any]:
        """What they are, as JSON types."""
        return {"name": self.name, "sha256": self.fingerprint, "size": len(self)}

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Tensor:
        """Batch ``number`` (0, 1, …) of process ``rank``: float (size,*S).

        A function of its arguments alone, so a resumed run needs no data state: epoch e is the permutation drawn with
        (seed, e), and an epoch's tail that fills no batch is left out.
        """
        require(len(self) >= world, f"data.path: {len(self)} items are too few for {world} processes")
        together = min(size, len(self) // world) * world
        per_epoch = len(self) // together
        start = (number % per_epoch) * together
        order = permutation(len(self), seed * 1_000_003 + number // per_epoch)
        return self[order[start : start + together][rank::world]]


@lru_cache(maxsize=2)  # an epoch's is asked for in each of its batches
def permutation(n: int, seed: int) -> Tensor:
    """The numbers 0..n-1 in an order that depends on the seed alone, (n,)."""
    return torch.randperm(n, generator=Generator().manual_seed(seed))


class Images(Items):
    """Images, decoded once into uint8 (N,C,H,W), so that a corrupt one is found before anything is trained.

    Items are float (C,H,W) in [-1, 1].
    """

    @property
    def pixels(self) -> Tensor:
        """(N,C,H,W) uint8"""
        return self.stored

    def __getitem__(self, index: Any) -> Tensor:
        return self.stored[index].float() / 127.5 - 1


class Vectors(Items):
    """Vectors as they are: (N,D) float32."""


class Draws:
    """Exact draws of a known density, fresh ones in each batch; ``energy`` is the density.

    Raises:
        ConfigError: the density has no exact draws
    """

    def __init__(self, energy: Energy):
        self.energy, self.name = energy, type(energy).__name__
        try:
            self.event_shape = tuple(energy.sample(1, Generator().manual_seed(0)).shape[1:])
        except NotImplementedError as error:
            raise ConfigError(f"data.density: {error}; take one that has, such as gaussian_mixture") from error

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Tensor:
        """Batch ``number`` (0, 1, …) of process ``rank``: (size,*S), a function of seed, number and rank alone."""
        state = np.random.SeedSequence([seed, number, rank]).generate_state(1, np.uint64)
        with torch.no_grad():
            return self.energy.sample(size, Generator().manual_seed(int(state[0])))
