"""What to learn from, as Hugging Face datasets or a known density give it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageOps
from torch import Tensor

from dxmi.energy import Energy
from dxmi.errors import ConfigError, first_line, require
from dxmi.items import Draws, Images, Vectors

Source = Images | Vectors | Draws


@dataclass(kw_only=True)
class Data:
    """What to learn from: images or vectors that are stored somewhere, or draws of a known density.

    Args:
        path: a Parquet file, a folder of images, or a hub id
        density: plugin, a known density; each batch is a fresh one of its exact draws. In place of ``path``
        column: name of the column with images (scaled to [-1, 1]) or lists of numbers (taken as they are)
        split: split of a hub dataset
        batch_size: items in a batch of each process
        size: scale an image's shorter side to this many pixels and crop the centre; null takes images as they are
        flip: whether batches of images are mirrored at random
    """

    path: str | None = None
    density: Energy | None = None
    column: str = "image"
    split: str = "train"
    batch_size: int = 64
    size: int | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        require((self.path is None) != (self.density is None), "data: give either a path or a density")
        require(self.batch_size >= 1, f"data.batch_size: {self.batch_size} is not positive")
        require(self.size is None or self.size >= 1, f"data.size: {self.size} is not positive")
        if self.density is not None:
            self.refuse("column", "split", "size", "flip", what="draws of a density have none")

    def refuse(self, *keys: str, what: str) -> None:
        """Raise ConfigError if one of these keys has another value than its default."""
        for key in keys:
            require(getattr(self, key) == getattr(Data, key), f"data.{key}: {what}; leave it out")


def load_data(data: Data, table: Any | None = None) -> Source:
    """What ``data`` describes, read into memory; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it cannot be had, or options do not fit it
    """
    if data.density is not None:
        return Draws(data.density)
    table = load_table(data) if table is None else table
    return load_vectors(data, table) if holds_lists(table, data.column) else load_images(data, table)


def holds_lists(table: Any, column: str) -> bool:
    """Whether a column of a `datasets.Dataset` holds lists of numbers."""
    kind = getattr(getattr(table.features.get(column), "feature", None), "dtype", "")
    return str(kind).startswith(("float", "int", "uint"))


def load_vectors(data: Data, table: Any | None = None) -> Vectors:
    """Read a column of lists of numbers; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it is missing or empty, or a row has no finite numbers or another length than the first
    """
    from pyarrow import compute  # what datasets stores its tables with

    table = load_table(data) if table is None else table
    data.refuse("size", "flip", what="it is for images, and these are vectors")
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
    return Vectors(vectors, Path(str(data.path)).name)


def load_images(data: Data, table: Any | None = None) -> Images:
    """Read and decode the dataset; ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: it is missing or empty, the column is missing or holds no images, an image is corrupt (named by
            its row) or of another size than the first
    """
    from datasets import Image as ImageFeature

    table = load_table(data) if table is None else table
    if data.column not in table.column_names:
        raise ConfigError(f"data.column: {data.path} has no '{data.column}'; it has {', '.join(table.column_names)}")
    require(len(table) > 0, f"data.path: {data.path} is empty")
    feature = table.features[data.column]
    raw = isinstance(feature, dict) and "bytes" in feature
    if not (raw or isinstance(feature, ImageFeature) or getattr(feature, "dtype", None) == "binary"):
        raise ConfigError(
            f"data.column: '{data.column}' of {data.path} holds no images or lists of numbers but {feature}"
        )
    column = table.cast_column(data.column, ImageFeature(decode=True)).with_format(None)[data.column]
    pixels: list[Tensor] = []
    for row in range(len(table)):
        try:
            pixels.append(to_pixels(column[row], data.size))
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"data.path: row {row} of {data.path} is no readable image: {error}") from error
        if pixels[-1].shape[1:] != pixels[0].shape[1:]:
            found, first = tuple(pixels[-1].shape[1:]), tuple(pixels[0].shape[1:])
            raise ConfigError(f"data.size: row {row} is {found}, row 0 is {first} (H,W); set data.size to resize")
    channels = max(len(image) for image in pixels)  # grey images among colour ones become colour
    return Images(torch.stack([image.expand(channels, -1, -1) for image in pixels]), Path(str(data.path)).name)


def draw_batch(source: Source, data: Data, number: int, seed: int, accelerator: Accelerator) -> Tensor:
    """Batch ``number`` on this process's device, mirrored at random if ``data.flip``: float (B,*S)."""
    rank, world = accelerator.process_index, accelerator.num_processes
    x = source.batch(number, data.batch_size, seed, rank, world).to(accelerator.device)
    if data.flip:
        x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(-1), x)
    return x


def load_table(data: Data) -> Any:
    """The `datasets.Dataset` behind ``data``. Raises ConfigError if it cannot be had."""
    from datasets import load_dataset

    given = str(data.path)
    path = Path(given).expanduser()
    try:
        if path.is_file() and path.suffix == ".parquet":
            return load_dataset("parquet", data_files=str(path), split="train")
        if path.is_dir() and any(path.glob("**/*.parquet")):
            return load_dataset("parquet", data_dir=str(path), split=data.split)
        if path.is_dir():
            return load_dataset("imagefolder", data_dir=str(path), split=data.split)
    except Exception as error:  # datasets raises its own, pyarrow's and fsspec's errors; all mean an unreadable path
        raise ConfigError(f"data.path: {data.path} cannot be read: {first_line(error)}") from error
    if path.exists() or path.suffix == ".parquet" or given.startswith((".", "/", "~")) or given.count("/") > 1:
        raise ConfigError(f"data.path: {data.path} is no Parquet file or folder of images")
    try:
        return load_dataset(given, split=data.split)
    except Exception as error:  # likewise for the hub
        raise ConfigError(f"data.path: {data.path} is neither here nor on the hub: {first_line(error)}") from error


def to_pixels(image: Any, size: int | None) -> Tensor:
    """A PIL image -> uint8 (C,H,W), C = 1 for grey and 3 for colour.

    Raises:
        ValueError: there is no image, or its values have no fixed range
    """
    if image is None:
        raise ValueError("it is empty")
    if image.mode in ("F", "I"):
        raise ValueError(f"its values (PIL mode {image.mode}) have no fixed range; store 8 or 16 bits a channel")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size))
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
