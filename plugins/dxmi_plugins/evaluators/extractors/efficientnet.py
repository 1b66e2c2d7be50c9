"""EfficientNet-Lite0 as a feature extractor: photographs without a download at run time."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dxmi.api.fingerprint import file_sha256
from dxmi_plugins.backbones.efficientnet_lite0 import CLASSES, FEATURES, load_efficientnet_lite0, weights_file
from dxmi_plugins.evaluators.extractors.base import Extractor

SMALL, SIDE, USUAL = 96, 96, 224


class EfficientNet(Extractor):
    """EfficientNet-Lite0 on ImageNet: 1280 pooled features and 1000 logits. Its distance is never called FID.

    Images of at most 96 x 96 are brought to 96 x 96, larger ones to the 224 x 224 that it was trained at: bilinear,
    with antialiasing where they shrink.

    Raises:
        ConfigError: its package is not installed
    """

    name, dimension, logits = "efficientnet_lite0", FEATURES, CLASSES
    resize = f"bilinear with antialiasing to {SIDE} of images up to {SMALL}, to {USUAL} of larger ones"
    library = f"torch {torch.__version__}"

    def __init__(self, option: str = "extractor"):
        self.option = option
        self.path = weights_file(option)

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """Of the file of weights."""
        return file_sha256(self.path)

    def load(self) -> nn.Module:
        """The network."""
        return load_efficientnet_lite0(self.option)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels uint8 (B,3,H,W) in 0..255 -> features (B,1280), logits (B,1000)."""
        images = pixels.to(self.device).float() / 127.5 - 1
        side = SIDE if max(images.shape[2:]) <= SMALL else USUAL
        features, logits = self.network(interpolate(images, (side, side), mode="bilinear", antialias=True))
        return features, logits
