"""What to learn from, as Hugging Face datasets or a known density give it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dxmi.energy import Energy
from dxmi.errors import ConfigError, require
from dxmi.items import Batch, Crops, Draws, Images, Items, Vectors
from dxmi.streams import Stream
from dxmi.tables import about_key, holds_lists, load_about, load_table, read_pixels, undecoded

Source = Items | Stream | Draws


@dataclass(kw_only=True)
class Data:
    """What to learn from: images or vectors that are stored somewhere, or draws of a known density.

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
        require((self.path is None) != (self.density is None), "data: give either a path or a density")
        for key in ("batch_size", "size", "buffer", "reference"):
            value = getattr(self, key)
            require(value is None or value >= 1, f"data.{key}: {value} is not positive")
        if self.density is not None:
            stored = ("column", "label", "caption", "split", "subset", "size", "crop", "flip", "streaming", "cache")
            self.refuse(*stored, what="draws of a density have none")
        require(self.label is None or self.caption is None, "data.caption: items have a label or a caption, not both")
        require(self.crop == "centre" or self.size is not None, "data.crop: random needs data.size, the square's side")
        if self.cache is not None:
            self.refuse("crop", "flip", what="data.cache keeps each image as it is")
            self.refuse("streaming", what="data.cache needs the data to end")
        if not self.streaming:
            self.refuse("buffer", "reference", what="it is for data.streaming")

    def refuse(self, *keys: str, what: str) -> None:
        """Raise ConfigError if one of these keys has another value than its default."""
        for key in keys:
            require(getattr(self, key) == getattr(Data, key), f"data.{key}: {what}; leave it out")


def load_data(data: Data, table: Any | None = None) -> Source:
    """What ``data`` describes, read into memory unless it is a stream; ``table``: what ``load_table`` gave, if at hand.

    Raises:
        ConfigError: it cannot be had, or options do not fit it
    """
    if data.density is not None:
        return Draws(data.density)
    table = load_table(data) if table is None else table
    lists = holds_lists(table, data.column)
    if data.streaming:
        require(not lists, "data.streaming: it is for images, and these are vectors; leave it out")
        return Stream(undecoded(table, data), data)
    return load_vectors(data, table) if lists else load_images(data, table)


def load_vectors(data: Data, table: Any | None = None) -> Vectors:
    """Read a column of lists of numbers; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it is missing or empty, or a row has no finite numbers or another length than the first
    """
    from pyarrow import compute  # what datasets stores its tables with

    table = load_table(data) if table is None else table
    data.refuse("size", "crop", "flip", what="it is for images, and these are vectors")
    require(len(table) > 0, f"data.path: {data.path} is empty")
    lists = table.with_format("arrow")[:][data.column]
    lengths = compute.list_value_length(lists).fill_null(0).to_pylist()
    for row, length in enumerate(lengths):
        if not length == lengths[0] > 0:
            raise ConfigError(
                f"data.column: row {row} of '{data.column}' has {length} numbers; give every row as many, one or more"
            )
    numbers = compute.list_flatten(lists).to_numpy().astype(np.float32)  # a missing one is NaN
    vectors = torch.from_numpy(numbers).reshape(len(lengths), -1)
    for row in (~vectors.isfinite().all(1)).nonzero()[:1].flatten().tolist():
        raise ConfigError(f"data.column: row {row} of '{data.column}' is not finite")
    return Vectors(vectors, Path(str(data.path)).name, load_about(table, data))


def load_images(data: Data, table: Any | None = None) -> Images:
    """Read and decode the dataset; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it is missing or empty, a column is missing or holds no images, labels or captions, an image is
            corrupt (named by its row) or of another size than the first
    """
    table = load_table(data) if table is None else table
    column = undecoded(table, data)[data.column]
    require(len(column) > 0, f"data.path: {data.path} is empty")
    pixels: list[Tensor] = []
    for row, value in enumerate(column):
        try:
            pixels.append(read_pixels(value, data))
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"data.path: row {row} of {data.path} is no readable image: {error}") from error
        if data.crop == "centre" and pixels[-1].shape[1:] != pixels[0].shape[1:]:
            found, first = tuple(pixels[-1].shape[1:]), tuple(pixels[0].shape[1:])
            raise ConfigError(f"data.size: row {row} is {found}, row 0 is {first} (H,W); set data.size to resize")
    channels = max(len(image) for image in pixels)  # grey images among colour ones become colour
    pixels = [image.expand(channels, -1, -1) for image in pixels]
    name, about = Path(str(data.path)).name, load_about(table, data)
    if data.crop == "random" and data.size is not None:
        return Crops(pixels, data.size, name, about)
    return Images(torch.stack(pixels), name, about)


def draw_batch(source: Source, data: Data, number: int, seed: int, accelerator: Accelerator) -> Batch:
    """Batch ``number`` on this process's device, mirrored at random if ``data.flip``."""
    rank, world = accelerator.process_index, accelerator.num_processes
    x, about = source.batch(number, data.batch_size, seed, rank, world)
    x = x.to(accelerator.device)
    if data.flip:
        x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(-1), x)
    return Batch(x, about.to(accelerator.device) if isinstance(about, Tensor) else about)


def check_labels(source: Source, data: Data, classes: int | None) -> None:
    """Raise ConfigError if a label is not one of the ``classes`` that the sampler knows; None knows any or none."""
    if classes is None or not isinstance(source, Items) or not isinstance(source.about, Tensor):
        return
    for row in (source.about >= classes).nonzero()[:1].flatten().tolist():
        known = f"the sampler knows 0..{classes - 1}"
        raise ConfigError(f"data.{about_key(data)}: row {row} has label {int(source.about[row])}, {known}")
