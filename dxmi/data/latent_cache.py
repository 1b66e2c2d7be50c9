"""What a sampler makes of the data, encoded once and kept on disk for this run and later ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dxmi.api import ConfigError, Sampler
from dxmi.api.errors import first_line, require
from dxmi.api.files import whole_file
from dxmi.data.items import Items

CHUNK = 64  # items that are encoded at a time


class Encoded(Items):
    """Items in a sampler's space, (N,*S) as ``encode`` gives them; what is known of each is its condition (...)."""


def cached(
    items: Items, sampler: Sampler, folder: Path, accelerator: Accelerator, tell: Callable[[str], None]
) -> Encoded:
    """The items encoded, read from ``folder``; the main process writes them there first if it has them not.

    Raises:
        ConfigError: the sampler encodes nothing, the folder cannot be written, or its file is not what it should be
    """
    key = fingerprint(items, sampler)
    file = folder.expanduser() / f"{key[:16]}.safetensors"
    failed: Exception | None = None
    if accelerator.is_main_process and not file.exists():
        tell(f"encoding {len(items)} items for {file}")
        try:
            x, cond = encode(items, sampler, accelerator.device)
            write({"x": x} if cond is None else {"x": x, "cond": cond}, file, key)
        except Exception as error:  # whatever it is, the other processes wait to hear of it
            failed = error
    share(failed, accelerator)
    return read(file, key, items.name)


def share(failed: Exception | None, accelerator: Accelerator) -> None:
    """Wait for the main process, and raise on every one what it failed with: a ConfigError, or a RuntimeError."""
    word = [failed if failed is None or isinstance(failed, ConfigError) else first_line(failed)]
    if accelerator.num_processes > 1:
        broadcast_object_list(word)
    if failed is not None:
        raise failed
    if word[0] is not None:
        raise word[0] if isinstance(word[0], ConfigError) else RuntimeError(f"the main process failed: {word[0]}")


def fingerprint(items: Items, sampler: Sampler) -> str:
    """SHA-256 of the items after they are resized, of what is told of them, and of what encodes them.

    Raises:
        ConfigError: the sampler takes the data as they are
    """
    encoder = sampler.encoder_fingerprint()
    kind = type(sampler).__name__
    require(encoder != "identity", "data.cache", f"{kind} takes the data as they are", "leave it out")
    about = items.about.tolist() if isinstance(items.about, Tensor) else items.about
    return hashlib.sha256(json.dumps([items.fingerprint, about, encoder]).encode()).hexdigest()


@torch.no_grad()
def encode(items: Items, sampler: Sampler, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """All items in the sampler's space (N,*S) and their conditions (N,...), on the CPU."""
    sampler = sampler.to(device)
    parts = []
    for rows in torch.split(torch.arange(len(items)), CHUNK):
        about = items.known(rows)
        x, cond = sampler.encode(items[rows].to(device), about.to(device) if isinstance(about, Tensor) else about)
        parts.append((x.cpu(), None if cond is None else cond.cpu()))
    conditions = [cond for _, cond in parts if cond is not None]
    return torch.cat([x for x, _ in parts]), torch.cat(conditions) if conditions else None


def write(tensors: dict[str, Tensor], file: Path, key: str) -> None:
    """The encoded items and their conditions as one file, with what they depend on in its header; whole or not at all.

    Raises:
        ConfigError: the folder cannot be written
    """
    try:
        with whole_file(file) as draft:
            save_file({name: t.contiguous() for name, t in tensors.items()}, draft, {"fingerprint": key})
    except (OSError, SafetensorError) as error:
        raise ConfigError("data.cache", f"{file.parent} cannot be written: {error}") from error


def read(file: Path, key: str, name: str) -> Encoded:
    """What ``write`` left.

    Raises:
        ConfigError: the file is damaged, or of other data or another encoder
    """
    try:
        with safe_open(file, "pt") as stored:
            own = (stored.metadata() or {}).get("fingerprint")
            tensors = {each: stored.get_tensor(each) for each in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError("data.cache", f"{file} is damaged ({error})", "delete it, and it is made again") from error
    if own != key or "x" not in tensors:
        raise ConfigError("data.cache", f"{file} is of other data or another autoencoder", "delete it")
    return Encoded(tensors["x"], name, tensors.get("cond"))
