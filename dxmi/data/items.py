"""What a run learns from: images, vectors, or fresh draws of a known density. All give the same batches again."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from dxmi.api import Annotations, ConfigError, Energy, ExactDraws
from dxmi.api.errors import require
from dxmi.api.noise import generator
from dxmi.data.pixels import centre, random_crop, scaled


class Batch(NamedTuple):
    """Items and what the data say of them."""

    items: Tensor
    """(B,*S)"""
    about: Annotations = None
    """labels (B,) long, B captions, or nothing"""


class Items(Dataset[Tensor]):
    """All items of a dataset in one tensor ``stored`` (N,*S), so that a batch costs an index.

    Items are float (*S). ``name`` and ``fingerprint`` (SHA-256 of what is stored, its type and shape) say what they
    are, ``about`` what is known of each: labels (N,) long or N captions.
    """

    def __init__(self, stored: Tensor, name: str, about: Annotations = None):
        self.stored, self.name, self.about = stored, name, about
        found = hashlib.sha256(f"{stored.dtype} {tuple(stored.shape)} ".encode())
        found.update(stored.contiguous().view(torch.uint8).numpy().data)
        self.fingerprint: str | None = found.hexdigest()

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Any) -> Tensor:
        return self.stored[index]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """S"""
        return tuple(self.stored.shape[1:])

    def half(self, k: int, seed: int) -> Items:
        """Half 0 or 1 of them, split at random: neighbours in a file may be alike, so that every other row is no draw.

        Of an odd number the first half has one more.
        """
        rows = permutation(len(self), seed).tensor_split(2)[k]
        return type(self)(self.stored[rows], self.name, self.known(rows))

    def reference(self) -> Items:
        """What evaluators compare samples with: all of them."""
        return self

    @property
    def classes(self) -> int | None:
        """One more than the largest label; None without labels."""
        return int(self.about.max()) + 1 if isinstance(self.about, Tensor) else None

    def stamp(self) -> dict[str, Any]:
        """What they are, as JSON types."""
        return {"name": self.name, "sha256": self.fingerprint, "size": len(self)}

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch ``number`` (0, 1, …) of process ``rank``: float (size,*S) and what is known of them.

        A function of its arguments alone, so a resumed run needs no data state: epoch e is the permutation drawn with
        (seed, e), and an epoch's tail that fills no batch is left out.
        """
        rows = self.rows(number, size, seed, rank, world)
        return Batch(self[rows], self.known(rows))

    def rows(self, number: int, size: int, seed: int, rank: int, world: int) -> Tensor:
        """Which items are in that batch, (size,)."""
        require(len(self) >= world, "data.path", f"{len(self)} items are too few for {world} processes")
        together = min(size, len(self) // world) * world
        per_epoch = len(self) // together
        start = (number % per_epoch) * together
        order = permutation(len(self), seed * 1_000_003 + number // per_epoch)
        return order[start : start + together][rank::world]

    def known(self, rows: Tensor) -> Annotations:
        """What is known of some items: labels (len(rows),) or captions."""
        if isinstance(self.about, list):
            return [self.about[i] for i in rows.tolist()]
        return None if self.about is None else self.about[rows]


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
        return scaled(self.stored[index])


class Crops(Images):
    """Images whose batches show another random square of each every time; items by themselves are the centres.

    Args:
        whole: uint8 (C,H,W) each, of any sizes not below ``size``
        size: sides of the squares
        name: what they are
        about: what is known of each
    """

    def __init__(self, whole: list[Tensor], size: int, name: str, about: Annotations = None):
        super().__init__(torch.stack([centre(image, size) for image in whole]), name, about)
        self.whole, self.size = whole, size

    def half(self, k: int, seed: int) -> Items:
        """The centres of half the images."""
        return Images(self.stored, self.name, self.about).half(k, seed)

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Batch:
        """As of all items; the squares too are a function of the arguments alone."""
        rows, draws = self.rows(number, size, seed, rank, world), generator(seed, number, rank)
        crops = [random_crop(self.whole[i], self.size, draws) for i in rows.tolist()]
        return Batch(scaled(torch.stack(crops)), self.known(rows))


class Vectors(Items):
    """Vectors as they are: (N,D) float32."""


class Draws:
    """Exact draws of a known density, fresh ones in each batch; ``energy`` is the density.

    Raises:
        ConfigError: the density has no exact draws
    """

    def __init__(self, energy: Energy):
        self.energy, self.name = energy, type(energy).__name__
        if not isinstance(energy, ExactDraws):
            cure = "take one that has, such as gaussian_mixture"
            raise ConfigError("data.density", f"{self.name} has no exact sampler", cure)
        self.draw = energy.sample
        self.event_shape = tuple(self.draw(1, Generator().manual_seed(0)).shape[1:])

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch ``number`` (0, 1, …) of process ``rank``: (size,*S), a function of seed, number and rank alone."""
        with torch.no_grad():
            return Batch(self.draw(size, generator(seed, number, rank)))
