"""From the keys of ``data`` to a source of batches, and the next batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config import DataConfig
from dxmi.data.items import Batch, Crops, Draws, Images, Items, Vectors
from dxmi.data.pixels import read_pixels
from dxmi.data.streams import Stream
from dxmi.data.tables import about_key, holds_lists, load_about, load_table, undecoded

Source = Items | Stream | Draws


def load_data(data: DataConfig, table: Any | None = None) -> Source:
    """What ``data`` describes, read into memory unless it is a stream; ``table``: what ``load_table`` gave, if at hand.

    Raises:
        ConfigError: it cannot be had, or options do not fit it
    """
    if data.density is not None:
        return Draws(data.density)
    table = load_table(data) if table is None else table
    lists = holds_lists(table, data.column)
    if data.streaming:
        require(not lists, "data.streaming", "it is for images, and these are vectors", "leave it out")
        return Stream(undecoded(table, data), data)
    return load_vectors(data, table) if lists else load_images(data, table)


def load_vectors(data: DataConfig, table: Any | None = None) -> Vectors:
    """Read a column of lists of numbers; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it is missing or empty, or a row has no finite numbers or another length than the first
    """
    from pyarrow import compute  # what datasets stores its tables with

    table = load_table(data) if table is None else table
    data.refuse("size", "crop", "flip", what="it is for images, and these are vectors")
    require(len(table) > 0, "data.path", f"{data.path} is empty")
    lists = table.with_format("arrow")[:][data.column]
    lengths = compute.list_value_length(lists).fill_null(0).to_pylist()
    for row, length in enumerate(lengths):
        if not length == lengths[0] > 0:
            raise ConfigError(
                "data.column",
                f"row {row} of '{data.column}' has {length} numbers",
                "give every row as many, one or more",
            )
    numbers = compute.list_flatten(lists).to_numpy().astype(np.float32)  # a missing one is NaN
    vectors = torch.from_numpy(numbers).reshape(len(lengths), -1)
    for row in (~vectors.isfinite().all(1)).nonzero()[:1].flatten().tolist():
        raise ConfigError("data.column", f"row {row} of '{data.column}' is not finite")
    return Vectors(vectors, Path(str(data.path)).name, load_about(table, data))


def load_images(data: DataConfig, table: Any | None = None) -> Images:
    """Read and decode the dataset; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it is missing or empty, a column is missing or holds no images, labels or captions, an image is
            corrupt (named by its row) or of another size than the first
    """
    table = load_table(data) if table is None else table
    column = undecoded(table, data)[data.column]
    require(len(column) > 0, "data.path", f"{data.path} is empty")
    pixels: list[Tensor] = []
    for row, value in enumerate(column):
        try:
            pixels.append(read_pixels(value, data))
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError("data.path", f"row {row} of {data.path} is no readable image: {error}") from error
        if data.crop == "centre" and pixels[-1].shape[1:] != pixels[0].shape[1:]:
            sides, first = tuple(pixels[-1].shape[1:]), tuple(pixels[0].shape[1:])
            raise ConfigError("data.size", f"row {row} is {sides}, row 0 is {first} (H,W)", "set data.size to resize")
    channels = max(len(image) for image in pixels)  # grey images among colour ones become colour
    pixels = [image.expand(channels, -1, -1) for image in pixels]
    name, about = Path(str(data.path)).name, load_about(table, data)
    if data.crop == "random" and data.size is not None:
        return Crops(pixels, data.size, name, about)
    return Images(torch.stack(pixels), name, about)


def draw_batch(source: Source, data: DataConfig, number: int, seed: int, accelerator: Accelerator) -> Batch:
    """Batch ``number`` on this process's device, mirrored at random if ``data.flip``."""
    rank, world = accelerator.process_index, accelerator.num_processes
    x, about = source.batch(number, data.batch_size, seed, rank, world)
    x = x.to(accelerator.device)
    if data.flip:
        x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(-1), x)
    return Batch(x, about.to(accelerator.device) if isinstance(about, Tensor) else about)


def check_labels(source: Source, data: DataConfig, classes: int | None) -> None:
    """Raise ConfigError if a label is not one of the ``classes`` that the sampler knows; None knows any or none."""
    if classes is None or not isinstance(source, Items) or not isinstance(source.about, Tensor):
        return
    for row in (source.about >= classes).nonzero()[:1].flatten().tolist():
        known = f"the sampler knows 0..{classes - 1}"
        raise ConfigError(f"data.{about_key(data)}", f"row {row} has label {int(source.about[row])}, {known}")
