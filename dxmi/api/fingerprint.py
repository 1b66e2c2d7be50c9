"""What networks, schedulers, tokenizers and files are, in a few letters: the same only where their samples are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def fingerprint(parts: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of weights, settings and vocabularies, wherever they lie.

    Args:
        parts: networks, schedulers, tokenizers and such, by name, as ``pipeline.components``; None where one is missing
        settings: of their whole, as ``pipeline.config``; names of parts in it do not count
    """
    digest = hashlib.sha256()
    whole = {key: value for key, value in public(settings or {}).items() if key not in parts}
    digest.update(json.dumps(whole, sort_keys=True, default=str).encode())
    for name, part in sorted(parts.items()):
        about = [name, type(part).__name__, public(settings_of(part)), vocabulary(part)]
        digest.update(json.dumps(about, sort_keys=True, default=str).encode())
        add_tensors(digest, part.state_dict() if hasattr(part, "state_dict") else {})
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, in hex; the same in whatever order and on whatever device they are."""
    digest = hashlib.sha256()
    add_tensors(digest, tensors)
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Go on with a digest of hashlib: names and bytes, sorted by name."""
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pipeline_fingerprint(pipeline: Any) -> str:
    """That of a pipeline's parts, settings and class, which runs the loop."""
    return fingerprint(pipeline.components, {"class": type(pipeline).__name__, **pipeline.config})


def settings_of(part: Any) -> dict[str, Any]:
    """The config of a part of diffusers or transformers; of an image processor, which is its own one."""
    config = getattr(part, "config", part)
    return config.to_dict() if hasattr(config, "to_dict") else dict(config) if isinstance(config, Mapping) else {}


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what tells where it came from and who wrote it."""
    return {key: value for key, value in settings.items() if not key.startswith("_")}


def vocabulary(part: Any) -> Any:
    """How a tokenizer spells words, what it pads with and how many it keeps of a text; None of other parts."""
    if not hasattr(part, "get_vocab"):
        return None
    if hasattr(part, "backend_tokenizer"):
        spelling = json.loads(part.backend_tokenizer.to_str())
        spelling |= {"truncation": None, "padding": None}  # as the last text was treated
    else:
        spelling = [part.get_vocab(), sorted(getattr(part, "bpe_ranks", {}).items())]
    return [spelling, part.special_tokens_map, part.model_max_length]
