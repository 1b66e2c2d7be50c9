"""Samples that are drawn once and kept in files: memory stays flat, and a run that was cut off goes on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dxmi.api import ConfigError, Draw
from dxmi.api.evaluator import LabelledDraw
from dxmi.api.files import whole_file
from dxmi.api.noise import CHUNK
from dxmi.chains import in_batches, noise_of_chunk, noise_rule, per_sample
from dxmi.data import scaled
from dxmi.evaluation.shared_samples import SharedSamples

NOTE = "samples.json"


T = TypeVar("T")


class KeptSamples(SharedSamples):
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
        self.made = {**(made or {}), "steps": steps, "seed": seed, "noise": noise_rule(draw), "versions": versions()}
        refuse_other(self.folder / NOTE, self.made)

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Samples i*CHUNK up to (i+1)*CHUNK, or n, for each i of ``mine``; on a GPU a thread draws the next ones."""
        return (chunk for chunk in ahead(self.steadily(n), self.ahead, self.accelerator.device) if chunk is not None)

    def steadily(self, n: int) -> Iterator[Tensor | None]:
        """The chunks, each from its file, or drawn; None after every batch, where one may stop."""
        for i in self.mine(n):
            size, path = min(CHUNK, n - i * CHUNK), self.folder / f"{i:05d}.safetensors"
            kept = read(path)
            # fewer of a chunk under one seed are other samples
            if kept is None or len(kept) < size or (len(kept) > size and not per_sample(self.draw)):
                noise, parts = noise_of_chunk(self.draw, self.seed, i, size), list[Tensor]()
                for part in in_batches(self.draw, size, self.steps, noise, self.batch_size):
                    parts.append(quantised(part))
                    self.seen(len(part))
                    yield None
                kept = torch.cat(parts)
                self.keep(path, kept)
            else:
                self.seen(size)
            yield scaled(kept[:size]) if kept.dtype == torch.uint8 else kept[:size]

    def keep(self, path: Path, samples: Tensor) -> None:
        """Write a chunk, after what the folder's samples are made of; each whole or not at all."""
        note = self.folder / NOTE
        if not note.exists():  # whichever process comes first: all say the same
            with whole_file(note) as draft:
                draft.write_text(json.dumps(self.made, indent=2) + "\n")
        with whole_file(path) as draft:
            save_file({"samples": samples}, draft)

    def labels(self, n: int) -> Tensor | None:
        """The labels (n,) of all samples, drawn again; None where there are none."""
        if not isinstance(self.draw, LabelledDraw):
            return None
        sizes = [(i, min(CHUNK, n - i * CHUNK)) for i in range(-(-n // CHUNK))]
        parts = [self.draw.labels(size, noise_of_chunk(self.draw, self.seed, i, size)) for i, size in sizes]
        known = [part for part in parts if part is not None]
        return torch.cat(known).cpu() if len(known) == len(parts) else None


def versions() -> dict[str, str]:
    """Of the libraries that samples and figures are made with."""
    return {"dxmi": version("dxmi"), "torch": torch.__version__, "diffusers": version("diffusers")}


def quantised(samples: Tensor) -> Tensor:
    """Samples (B,*S) as a file keeps them: images (B,C,H,W) in [-1, 1] clamped and rounded to uint8.

    Raises:
        FloatingPointError: a pixel is not finite
    """
    if samples.ndim != 4:
        return samples.contiguous()
    if not samples.isfinite().all():
        raise FloatingPointError("some samples are not finite numbers, so they have no distance to the data")
    return ((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).contiguous()


def read(path: Path) -> Tensor | None:
    """The samples of a file; None where there is none, or a damaged one."""
    try:
        samples: Tensor = load_file(path)["samples"]
        return samples
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def ahead(source: Iterator[T], depth: int, device: torch.device) -> Iterator[T]:
    """The items of ``source``, of which a thread of its own makes up to ``depth`` before they are asked for.

    device: what a bare "cuda" means in the thread; threads start at the first GPU, whatever the process has chosen.
    """
    if depth == 0:
        yield from source
        return
    choose = partial(torch.cuda.set_device, device) if device.type == "cuda" and device.index is not None else None
    end, thread = object(), ThreadPoolExecutor(1, initializer=choose)
    try:
        waiting = deque(thread.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, source, end))
            yield cast(T, item)
    finally:
        thread.shutdown(cancel_futures=True)


def refuse_other(note: Path, made: dict[str, Any]) -> None:
    """Raise ConfigError if a folder's note tells of samples that were made otherwise."""
    try:
        old = json.loads(note.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        old = None
    old = old if isinstance(old, dict) else {}
    differing = [key for key in made if old.get(key) != made[key]]
    if differing:
        was = ", ".join(f"{key} {old.get(key)} instead of {made[key]}" for key in differing)
        raise ConfigError("out", f"{note.parent} holds samples with {was}", "give another folder")
