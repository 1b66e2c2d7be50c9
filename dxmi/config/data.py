"""What to learn from: the keys of ``data``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dxmi.api import Energy
from dxmi.api.errors import require


@dataclass(kw_only=True)
class DataConfig:
    """What to learn from: images or vectors that are stored somewhere, or draws of a known density.

    The keys stand below ``data`` in files of ``dxmi train`` and ``dxmi pretrain``; what ``dxmi evaluate`` reads takes
    them too.

    Args:
        path: a Parquet file or a folder of them, a folder of images, WebDataset shards (a .tar, a folder of them or a
            pattern with a star), or a hub id
        density: plugin, a known density; each batch is a fresh one of its exact draws. In place of ``path``
        column: name of the column with images (scaled to [-1, 1]) or lists of numbers (taken as they are)
        label: name of a column of integers from 0 on, the items' classes, for samplers that draw classes
        caption: name of a column of texts, for samplers that draw what a text says
        split: split of a hub dataset
        subset: which of a hub dataset's subsets (configurations), as en; null takes its default
        batch_size: items in a batch of each process
        size: scale an image's shorter side to this many pixels and crop it square; null takes images as they are
        crop: which square, the one in the centre or another at random in every batch; evaluators see the centre
        flip: whether batches of images are mirrored at random
        streaming: read images when batches need them and keep none, for datasets that do not fit into memory; a resumed
            run reads up to where it was
        buffer: number of images that a stream is shuffled among
        reference: number of images, the first of a stream, that evaluators compare samples with
        cache: a folder that keeps what the sampler makes of the data, latents and embedded captions, so that later runs
            need not encode again; null encodes each batch. All of it has to fit into each process's memory, and twice
            into that of the main process while it encodes

    Raises:
        ConfigError: a value is out of range, or two keys exclude each other
    """

    path: str | None = None
    density: Energy | None = None
    column: str = "image"
    label: str | None = None
    caption: str | None = None
    split: str = "train"
    subset: str | None = None
    batch_size: int = 64
    size: int | None = None
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    streaming: bool = False
    buffer: int = 1000
    reference: int = 10_000
    cache: str | None = None

    def __post_init__(self) -> None:
        require((self.path is None) != (self.density is None), "data", "give either a path or a density")
        for key in ("batch_size", "size", "buffer", "reference"):
            value = getattr(self, key)
            require(value is None or value >= 1, f"data.{key}", f"{value} is not positive")
        if self.density is not None:
            stored = ("column", "label", "caption", "split", "subset", "size", "crop", "flip", "streaming", "cache")
            self.refuse(*stored, what="draws of a density have none")
        require(self.label is None or self.caption is None, "data.caption", "items have a label or a caption, not both")
        require(
            self.crop == "centre" or self.size is not None, "data.crop", "random needs data.size, the square's side"
        )
        if self.cache is not None:
            self.refuse("crop", "flip", what="data.cache keeps each image as it is")
            self.refuse("streaming", what="data.cache needs the data to end")
        if not self.streaming:
            self.refuse("buffer", "reference", what="it is for data.streaming")

    def refuse(self, *keys: str, what: str) -> None:
        """Raise ConfigError if one of these keys has another value than its default."""
        for key in keys:
            require(getattr(self, key) == getattr(DataConfig, key), f"data.{key}", what, "leave it out")
