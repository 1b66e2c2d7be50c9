"""Noise that is each sample's own."""

from __future__ import annotations

from collections.abc import Sequence

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


def random_labels(n: int, classes: int, generator: Noise, device: torch.device | None = None) -> Tensor:
    """N labels in 0..classes-1, uniformly at random, (n,) long: of a list of n generators each sample's own."""
    if isinstance(generator, Sequence):
        drawn = [torch.randint(classes, (1,), generator=own, device=own.device) for own in generator]
        return torch.cat([label.to(device) for label in drawn])
    place = device if generator is None else generator.device
    return torch.randint(classes, (n,), generator=generator, device=place).to(device)


def randn(shape: Sequence[int], like: Tensor, generator: Noise = None) -> Tensor:
    """Standard normal noise (B,*S) with the dtype and device of ``like``, drawn where the generator lives.

    A CPU generator so gives the same noise on every device, and a list of B of them each sample its own.
    """
    if isinstance(generator, Sequence):
        each = [randn((1, *shape[1:]), like, one) for one in generator]
        return torch.cat(each).reshape(tuple(shape))
    device = like.device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=like.dtype).to(like.device)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """One value a row, (B,), in the shape (B,1,...) that broadcasts over ``like`` (B,*S)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
