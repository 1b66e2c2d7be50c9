"""Samples for evaluators: drawn by all processes, each from its own noise, and kept in files so that memory stays flat.

Sample i of seed s takes its noise from a generator seeded by (s, i) alone, as in EDM's code (Karras et al. 2022), so
that neither the size of batches nor the number of processes changes it. What takes one generator alone, as chains do,
has chunks of ``CHUNK`` samples under a seed of their own instead, with the same effect.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from dxmi.api import ConfigError, CostToGo, Draw, Sampler
from dxmi.items import Items, permutation, scaled
from dxmi.objectives import walk
from dxmi.samples import CHUNK, Noise, generators

PER_SAMPLE = "SeedSequence(seed, index) of each sample"
PER_CHUNK = f"seed*1000003 + chunk, of each {CHUNK} samples"


class Student:
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


class Part(ABC):
    """A process's share of n events: chunks of ``CHUNK``, each process the next one in turn."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.drawn = accelerator, 0

    @abstractmethod
    def chunk(self, i: int, n: int) -> Tensor:
        """Events i*CHUNK up to (i+1)*CHUNK, or n."""

    def mine(self, n: int) -> range:
        """The numbers of this process's chunks."""
        return range(self.accelerator.process_index, -(-n // CHUNK), self.accelerator.num_processes)

    def __call__(self, n: int) -> Tensor:
        """All events (n,*S), on the CPU of every process."""
        parts = list(zip(self.mine(n), self.batches(n), strict=False))
        if self.accelerator.num_processes > 1:
            parts = gather_object(parts)
        return torch.cat([part for _, part in sorted(parts, key=lambda pair: pair[0])])

    def rows(self, n: int) -> Tensor:
        """Which of n events are this process's, (k,)."""
        return self.share(n)

    def share(self, n: int) -> Tensor:
        """Which of n items of anything are this process's, (k,): chunks again."""
        whole = [range(i * CHUNK, min((i + 1) * CHUNK, n)) for i in self.mine(n)]
        return torch.tensor(list(chain.from_iterable(whole)), dtype=torch.long)

    def batches(self, n: int) -> Iterator[Tensor]:
        """The events of ``rows(n)``, a chunk at a time."""
        self.drawn = max(self.drawn, n)
        for i in self.mine(n):
            yield self.chunk(i, n)

    def gather(self, x: Tensor) -> Tensor:
        """Every process's x (k,*S), one after the other, on every process."""
        if self.accelerator.num_processes == 1:
            return x
        return torch.cat(gather_object([x.cpu()])).to(x.device)

    def reduce(self, x: Tensor) -> Tensor:
        """The sum over processes of x."""
        if self.accelerator.num_processes == 1:
            return x
        total: Tensor = self.accelerator.reduce(x.to(self.accelerator.device), "sum")
        return total.to(x.device)


class StoredSamples(Part):
    """N items of a dataset at random, always the same ones, in place of samples; all of them if it has fewer."""

    def __init__(self, items: Items, accelerator: Accelerator):
        super().__init__(accelerator)
        self.items, self.order = items, permutation(len(items), 0)  # datasets are often sorted

    def __call__(self, n: int) -> Tensor:
        """All of the n events, on the CPU of every process."""
        return super().__call__(min(n, len(self.items)))

    def rows(self, n: int) -> Tensor:
        """Which of those of the n events that are there are this process's, (k,)."""
        return super().rows(min(n, len(self.items)))

    def batches(self, n: int) -> Iterator[Tensor]:
        """The events of ``rows(n)``, a chunk at a time."""
        return super().batches(min(n, len(self.items)))

    def chunk(self, i: int, n: int) -> Tensor:
        """Items i*CHUNK up to (i+1)*CHUNK, or n."""
        return self.items[self.order[i * CHUNK : min((i + 1) * CHUNK, n)]]

    def labels(self, n: int) -> Tensor | None:
        """Their labels (n,), where they have some."""
        return self.items.about[self.order[:n]] if isinstance(self.items.about, Tensor) else None


class DrawnSamples(Part):
    """What a ``Draw`` makes, drawn once and kept: images in eight bits, as files have them, other events as they are.

    Args:
        draw: as of the contracts; it takes a list of generators if its ``per_sample`` says so
        steps: what it is asked for
        seed: of all noise
        accelerator: the processes that share the work
        folder: what keeps them and may have some already; None keeps them in a temporary one
        batch_size: drawn at once, at most ``CHUNK``; what takes one generator alone draws a chunk at once
        made: what the samples depend on, as JSON types

    Raises:
        ConfigError: the folder holds samples that were made otherwise
    """

    def __init__(
        self,
        draw: Draw,
        steps: int,
        seed: int,
        accelerator: Accelerator,
        folder: Path | None = None,
        batch_size: int = CHUNK,
        made: dict[str, Any] | None = None,
    ):
        super().__init__(accelerator)
        self.draw, self.steps, self.seed, self.batch_size = draw, steps, seed, batch_size
        self.per_sample = per_sample(draw)
        self.own = TemporaryDirectory(prefix="dxmi-samples-") if folder is None else None
        self.folder = Path(self.own.name) if self.own is not None else cast(Path, folder)
        told = {**(made or {}), "steps": steps, "seed": seed, "noise": noise_rule(draw)}
        if folder is not None:
            claim(folder, told, accelerator)

    def chunk(self, i: int, n: int) -> Tensor:
        """Samples i*CHUNK up to (i+1)*CHUNK, or n: from their file, or drawn."""
        size, path = min(CHUNK, n - i * CHUNK), self.folder / f"{i:05d}.safetensors"
        kept = load_file(path)["samples"] if path.exists() else None
        # fewer of a chunk under one seed are other samples
        if kept is None or len(kept) < size or (len(kept) > size and not self.per_sample):
            kept = stored(self.made(i, size))
            partial = path.with_suffix(".partial")
            save_file({"samples": kept}, partial)
            partial.replace(path)
        return scaled(kept[:size]) if kept.dtype == torch.uint8 else kept[:size]

    def made(self, i: int, size: int) -> Tensor:
        """Chunk i, drawn."""
        noise = self.noise(i, size)
        if not isinstance(noise, list):
            return self.draw(size, self.steps, noise).cpu()
        return in_batches(self.draw, self.steps, noise, self.batch_size)

    def noise(self, i: int, size: int) -> Noise:
        """What chunk i takes its noise from."""
        if self.per_sample:
            return generators(self.seed, range(i * CHUNK, i * CHUNK + size))
        return Generator().manual_seed(self.seed * 1_000_003 + i)

    def labels(self, n: int) -> Tensor | None:
        """The labels (n,) of all samples, drawn again; None where there are none."""
        labels = getattr(self.draw, "labels", None)
        if labels is None:
            return None
        sizes = [(i, min(CHUNK, n - i * CHUNK)) for i in range(-(-n // CHUNK))]
        found = [labels(size, self.noise(i, size)) for i, size in sizes]
        return None if any(part is None for part in found) else torch.cat(found).cpu()


def in_batches(draw: Draw, steps: int, noise: Sequence[Generator], size: int) -> Tensor:
    """A sample of each generator (n,*S), on the CPU; at most ``size`` are drawn at once."""
    parts = (noise[k : k + size] for k in range(0, len(noise), size))
    return torch.cat([draw(len(part), steps, part).cpu() for part in parts])


def first_samples(draws: Sequence[Draw], n: int, steps: int, seed: int, size: int) -> list[Tensor]:
    """N samples (n,*S) of each, for pictures: all from the same noise, as evaluators have it where each can."""
    if all(map(per_sample, draws)):
        return [in_batches(draw, steps, generators(seed, range(n)), size) for draw in draws]
    return [draw(n, steps, Generator().manual_seed(seed)).cpu() for draw in draws]


def per_sample(draw: Draw) -> bool:
    """Whether it takes a list of generators, one for each sample."""
    return bool(getattr(draw, "per_sample", False))


def noise_rule(draw: Draw) -> str:
    """What its samples' generators are seeded by, for stamps."""
    return PER_SAMPLE if per_sample(draw) else PER_CHUNK


def stored(samples: Tensor) -> Tensor:
    """Samples (B,*S) as a file keeps them: images (B,C,H,W) in [-1, 1] clamped and rounded to uint8.

    Raises:
        FloatingPointError: a pixel is not finite
    """
    if samples.ndim != 4:
        return samples.contiguous()
    if not samples.isfinite().all():
        raise FloatingPointError("some samples are not finite numbers, so they have no distance to the data")
    return ((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).contiguous()


def claim(folder: Path, made: dict[str, Any], accelerator: Accelerator) -> None:
    """Say in ``folder`` what its samples are made of, or raise ConfigError if it holds other ones."""
    note = folder / "samples.json"
    if note.exists():
        try:
            old = json.loads(note.read_text())
        except ValueError:
            old = {}
        differing = [key for key in made if old.get(key) != made[key]]
        if differing:
            was = ", ".join(f"{key} {old.get(key)} instead of {made[key]}" for key in differing)
            raise ConfigError(f"--out: {folder} holds samples with {was}; give another folder")
    accelerator.wait_for_everyone()
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process and not note.exists():
        note.write_text(json.dumps(made, indent=2) + "\n")
