"""Hugging Face datasets as batches of images in [-1, 1]."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.errors import ConfigError, first_line, require


@dataclass(kw_only=True)
class Data:
    """Which images to learn from.

    Args:
        path: a Parquet file, a folder of images, or a hub id
        column: name of the image column
        split: split of a hub dataset
        batch_size: images in a batch of each process
        size: scale the shorter side to this many pixels and crop the centre; null takes images as they are
        flip: whether batches are mirrored at random
    """

    path: str
    column: str = "image"
    split: str = "train"
    batch_size: int = 64
    size: int | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"data.batch_size: {self.batch_size} is not positive")
        require(self.size is None or self.size >= 1, f"data.size: {self.size} is not positive")


class Images(Dataset[Tensor]):
    """All images of a dataset, decoded once into one uint8 tensor.

    Decoding once makes a batch cost an index, and finds a corrupt image before anything is trained. Items are float
    (C,H,W) in [-1, 1]. ``pixels`` is (N,C,H,W); ``name`` and ``fingerprint`` (SHA-256
    of the pixels) say what they are.
    """

    def __init__(self, pixels: Tensor, name: str):
        self.pixels, self.name = pixels, name
        self.fingerprint = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Any) -> Tensor:
        return self.pixels[index].float() / 127.5 - 1

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(C,H,W)"""
        return tuple(self.pixels.shape[1:])

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Tensor:
        """Batch ``number`` (0, 1, …) of process ``rank``: float (size,C,H,W).

        A function of its arguments alone, so a resumed run needs no data state: epoch e is the permutation drawn with
        (seed, e), and an epoch's tail that fills no batch is left out.
        """
        require(len(self) >= world, f"data.path: {len(self)} images are too few for {world} processes")
        together = min(size, len(self) // world) * world
        per_epoch = len(self) // together
        order = torch.Generator().manual_seed(seed * 1_000_003 + number // per_epoch)
        start = (number % per_epoch) * together
        mine = torch.randperm(len(self), generator=order)[start : start + together][rank::world]
        return self[mine]


def load_images(data: Data) -> Images:
    """Read and decode the dataset.

    Raises:
        ConfigError: it is missing or empty, the column is missing or holds no images, an image is corrupt (named by
            its row) or of another size than the first
    """
    from datasets import Image as ImageFeature

    table = load_table(data)
    if data.column not in table.column_names:
        raise ConfigError(f"data.column: {data.path} has no '{data.column}'; it has {', '.join(table.column_names)}")
    require(len(table) > 0, f"data.path: {data.path} is empty")
    feature = table.features[data.column]
    raw = isinstance(feature, dict) and "bytes" in feature
    if not (raw or isinstance(feature, ImageFeature) or getattr(feature, "dtype", None) == "binary"):
        raise ConfigError(f"data.column: '{data.column}' of {data.path} holds no images but {feature}")
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
    return Images(torch.stack([image.expand(channels, -1, -1) for image in pixels]), Path(data.path).name)


def draw_batch(images: Images, data: Data, number: int, seed: int, accelerator: Accelerator) -> Tensor:
    """Batch ``number`` on this process's device, mirrored at random if ``data.flip``: float (B,C,H,W) in [-1, 1]."""
    rank, world = accelerator.process_index, accelerator.num_processes
    x = images.batch(number, data.batch_size, seed, rank, world).to(accelerator.device)
    if data.flip:
        x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(-1), x)
    return x


def load_table(data: Data) -> Any:
    """The `datasets.Dataset` behind ``data``. Raises ConfigError if it cannot be had."""
    from datasets import load_dataset

    path = Path(data.path).expanduser()
    try:
        if path.is_file() and path.suffix == ".parquet":
            return load_dataset("parquet", data_files=str(path), split="train")
        if path.is_dir() and any(path.glob("**/*.parquet")):
            return load_dataset("parquet", data_dir=str(path), split=data.split)
        if path.is_dir():
            return load_dataset("imagefolder", data_dir=str(path), split=data.split)
    except Exception as error:  # datasets raises its own, pyarrow's and fsspec's errors; all mean an unreadable path
        raise ConfigError(f"data.path: {data.path} cannot be read: {first_line(error)}") from error
    if path.exists() or path.suffix == ".parquet" or data.path.startswith((".", "/", "~")) or data.path.count("/") > 1:
        raise ConfigError(f"data.path: {data.path} is no Parquet file or folder of images")
    try:
        return load_dataset(data.path, split=data.split)
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
