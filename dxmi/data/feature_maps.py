"""Feature maps of images from a frozen EfficientNet of ``transformers``, kept on disk once they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from dxmi.api import ConfigError
from dxmi.api.files import whole_file

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""mean and std of ImageNet's channels, of values in [0, 1]"""


LEVELS = 4
"""strides 2, 4, 8 and 16"""


LEAST = 32
"""pixels of a side"""


class FeatureMaps(nn.Module):
    """The last hidden states at strides 2, 4, 8 and 16 of a frozen EfficientNet, on one grid (TOOLBOX C).

    Each is resized to the grid (bilinear, corners aligned); together they are one vector a cell, of norm 1. Of
    ``google/efficientnet-b4`` it has 24 + 32 + 56 + 160 = 272 numbers.

    Args:
        backbone: hub id or folder of a ``transformers`` EfficientNet
        size: pixels of a side that images are resized to
        grid: cells of a side of the map

    Raises:
        ConfigError: the backbone is not there, is another network or lacks weights, or size or grid is too small
    """

    def __init__(self, backbone: str = "google/efficientnet-b4", size: int = 224, grid: int = 14):
        super().__init__()
        if size < LEAST:
            raise ConfigError("size", f"{size} pixels are too few for a stride of 16", f"give {LEAST} or more")
        if grid < 1:
            raise ConfigError("grid", f"{grid} is not positive")
        self.network, self.size, self.grid = load_efficientnet(backbone), size, grid

    def train(self, mode: bool = True) -> FeatureMaps:
        """It is frozen: always in evaluation."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Standardised images (B,3,H,W) -> (B,grid,grid,C), of norm 1 along the last axis.

        Raises:
            ConfigError: the network does not go down to a stride of 16
        """
        states = self.network(images, output_hidden_states=True).hidden_states
        last = {state.shape[-2:]: state for state in states}  # later blocks of one size replace earlier ones
        if len(last) < LEVELS:
            raise ConfigError("backbone", f"it has maps of {len(last)} sizes, and strides 2, 4, 8, 16 are 4 of them")
        levels = [
            interpolate(state, (self.grid, self.grid), mode="bilinear", align_corners=True)
            for state in list(last.values())[:LEVELS]
        ]
        return normalize(torch.cat(levels, 1), dim=1).permute(0, 2, 3, 1)

    def of_files(self, files: Sequence[Path], cache: Path | None = None, batch: int = 16) -> Tensor:
        """The maps (N,grid,grid,C) of image files, on the CPU.

        With a folder ``cache`` they are kept there under a hash of the files' bytes, the network and the settings, and
        read back the next time.

        Raises:
            ConfigError: there are no files, or one is no readable image
        """
        if not files:
            raise ConfigError("files", "there are no images to take features of")
        path = None if cache is None else cache / f"features-{self.key(files)}.safetensors"
        if path is not None and path.is_file():
            try:
                stored: Tensor = load_file(path)["maps"]
                return stored
            except (SafetensorError, KeyError):  # not what was written there: make it again
                pass
        device = next(self.network.parameters()).device
        parts = [files[k : k + batch] for k in range(0, len(files), batch)]
        images = (torch.stack([read_image(file, self.size) for file in part]) for part in parts)
        maps = torch.cat([self(part.to(device)).cpu() for part in images]).contiguous()
        if path is not None:
            with whole_file(path) as draft:
                draft.write_bytes(save({"maps": maps}))  # save_file makes files that nobody else can read
        return maps

    def key(self, files: Sequence[Path]) -> str:
        """A hash of all that the maps depend on: bytes of the files in their order, weights, options."""
        network: Any = self.network
        digest = hashlib.sha256(json.dumps([self.size, self.grid, network.config.to_diff_dict()], default=str).encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        for file in files:
            digest.update(hashlib.sha256(readable(file)).digest())
        return digest.hexdigest()[:32]


def load_efficientnet(backbone: str) -> nn.Module:
    """The network, frozen; raises ConfigError unless all its weights are there."""
    from transformers import AutoConfig, EfficientNetModel

    try:
        kind = AutoConfig.from_pretrained(backbone).model_type
        if kind != "efficientnet":  # transformers would fill an EfficientNet with noise
            raise ConfigError("backbone", f"{backbone} is of the type {kind}", "give an EfficientNet")
        network, report = EfficientNetModel.from_pretrained(backbone, output_loading_info=True)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError("backbone", f"{backbone} is neither here nor on the hub: {reason}") from error
    if report["missing_keys"]:
        raise ConfigError(
            "backbone", f"{backbone} lacks the weights {sorted(report['missing_keys'])[0]} and maybe more"
        )
    return network.requires_grad_(False).eval()  # type: ignore[no-any-return]


def read_image(file: Path, size: int) -> Tensor:
    """A file as a standardised image (3,size,size); raises ConfigError if it is no readable image."""
    from torchvision.transforms.functional import normalize as standardise

    try:
        with Image.open(file) as image:
            pixels = np.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(file, f"this is no readable image: {error}") from error
    standard: Tensor = standardise(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, *map(list, IMAGENET))
    return standard


def readable(file: Path) -> bytes:
    """The bytes of a file; raises ConfigError if there is none."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(file, f"it cannot be read: {error}") from error
