"""From an image to numbers: uint8 pixels, squares of them, and [-1, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from dxmi.config import DataConfig


def read_pixels(value: Any, data: DataConfig) -> Tensor:
    """An undecoded image -> uint8 (C,H,W), scaled as ``data`` ask, cropped unless ``data.crop`` is random.

    Raises:
        OSError, SyntaxError, ValueError: it is no readable image
    """
    from datasets import Image as ImageFeature

    return to_pixels(None if value is None else ImageFeature().decode_example(value), data.size, data.crop == "random")


def to_pixels(image: Any, size: int | None, whole: bool = False) -> Tensor:
    """A PIL image -> uint8 (C,H,W), C = 1 for grey and 3 for colour.

    Args:
        image: a PIL image
        size: what the shorter side is scaled to; None leaves it
        whole: keep the rest of the longer side, else the centre alone

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
        scale = size / min(image.size)
        sides = tuple(max(size, round(side * scale)) for side in image.size)
        image = image.resize(sides, Image.Resampling.BICUBIC) if whole else ImageOps.fit(image, (size, size))
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def scaled(pixels: Tensor) -> Tensor:
    """Uint8 0..255 -> float in [-1, 1], of the same shape."""
    return pixels.float() / 127.5 - 1


def centre(image: Tensor, size: int) -> Tensor:
    """(C,H,W) -> its central (C,size,size)."""
    top, left = ((side - size) // 2 for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def random_crop(image: Tensor, size: int, draws: Generator) -> Tensor:
    """(C,H,W) -> (C,size,size) from anywhere in it, each place as likely."""
    top, left = (int(torch.randint(side - size + 1, (), generator=draws)) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]
