"""Samples that are drawn once and kept in files: memory stays flat, and a run that was cut off goes on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from dxmi.api import ConfigError, Draw
from dxmi.drawing import in_batches, noise_of_chunk, noise_rule, per_sample
from dxmi.items import scaled
from dxmi.parts import Part
from dxmi.samples import CHUNK

T = TypeVar("T")


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
        self.ahead = 0 if accelerator.device.type == "cpu" else -(-CHUNK // batch_size)  # on a CPU threads would fight
        self.own = TemporaryDirectory(prefix="dxmi-samples-") if folder is None else None
        self.folder = Path(self.own.name) if self.own is not None else cast(Path, folder)
        told = {**(made or {}), "steps": steps, "seed": seed, "noise": noise_rule(draw)}
        if folder is not None:
            claim(folder, told, accelerator)

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Samples i*CHUNK up to (i+1)*CHUNK, or n, for each i of ``mine``; on a GPU a thread draws the next ones."""
        return (chunk for chunk in ahead(self.steadily(n), self.ahead) if chunk is not None)

    def steadily(self, n: int) -> Iterator[Tensor | None]:
        """The chunks, each from its file, or drawn; None after every batch, where one may stop."""
        for i in self.mine(n):
            size, path = min(CHUNK, n - i * CHUNK), self.folder / f"{i:05d}.safetensors"
            kept = load_file(path)["samples"] if path.exists() else None
            # fewer of a chunk under one seed are other samples
            if kept is None or len(kept) < size or (len(kept) > size and not per_sample(self.draw)):
                noise, parts = noise_of_chunk(self.draw, self.seed, i, size), list[Tensor]()
                for part in in_batches(self.draw, size, self.steps, noise, self.batch_size):
                    parts.append(stored(part))
                    yield None
                kept = torch.cat(parts)
                write(path, kept)
            yield scaled(kept[:size]) if kept.dtype == torch.uint8 else kept[:size]

    def labels(self, n: int) -> Tensor | None:
        """The labels (n,) of all samples, drawn again; None where there are none."""
        labels = getattr(self.draw, "labels", None)
        if labels is None:
            return None
        sizes = [(i, min(CHUNK, n - i * CHUNK)) for i in range(-(-n // CHUNK))]
        found = [labels(size, noise_of_chunk(self.draw, self.seed, i, size)) for i, size in sizes]
        return None if any(part is None for part in found) else torch.cat(found).cpu()


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


def write(path: Path, samples: Tensor) -> None:
    """A file of samples, at once or not at all."""
    partial = path.with_suffix(".partial")
    save_file({"samples": samples}, partial)
    partial.replace(path)


def ahead(source: Iterator[T], depth: int) -> Iterator[T]:
    """The items of ``source``, of which a thread of its own makes up to ``depth`` before they are asked for."""
    if depth == 0:
        yield from source
        return
    end, thread = object(), ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, source, end))
            yield cast(T, item)
    finally:
        thread.shutdown(cancel_futures=True)


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
