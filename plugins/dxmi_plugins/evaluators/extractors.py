"""Feature extractors: what turns uint8 images into the features and logits that metrics read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from dxmi.api import ConfigError

from .classifier import Classifier, sha256


class Extractor(ABC):
    """uint8 (B,channels,H,W) -> features (B,dimension) and, where it has any, logits (B,logits). Loaded on first use.

    A deterministic function of its weights and the pixels; it runs on the GPU if there is one.
    """

    name: str
    """what its distances are called after"""
    resize: str
    """how images come to the size it reads"""
    library: str
    """what runs it and which version, such as ``torch-fidelity 0.4.0``"""
    channels: int = 3
    dimension: int
    """D"""
    logits: int | None = None
    """how many; None without"""
    labelled: bool = False
    """whether logit k stands for label k of the data, so that it can judge labels"""

    @property
    @abstractmethod
    def sha256(self) -> str | None:
        """Hex digest of its weights; None while they are not here."""

    @abstractmethod
    def load(self) -> nn.Module:
        """Its network.

        Raises:
            ConfigError: its weights are missing, or are others
        """

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation, on its device."""
        with torch.random.fork_rng():  # networks are initialised before they are loaded: leave the run's noise alone
            network = self.load()
        return network.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")

    def ready(self) -> None:
        """Load all of it now.

        Raises:
            ConfigError: its weights are missing, or are others
        """
        _ = self.network

    def stamp(self) -> dict[str, str | None]:
        """All that its features depend on beside the pixels."""
        return {"name": self.name, "weights_sha256": self.sha256, "resize": self.resize, "library": self.library}

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels uint8 (B,C,H,W) in 0..255 -> features (B,D) float, logits (B,K) or None."""
        outputs = self.network(pixels.to(self.device))
        return outputs[0].float(), outputs[1].float() if self.logits is not None else None


class ClassifierFile(Extractor):
    """A safetensors file of examples/train_extractor.py, for images of the size it was trained on."""

    resize = "none"
    library = f"dxmi {version('dxmi')}"
    labelled = True

    def __init__(self, path: Path):
        options = Classifier.load(path).options
        self.path, self.name = path, path.stem
        self.channels, self.dimension, self.logits = options["channels"], options["features"], options["classes"]

    @property
    def sha256(self) -> str:
        """Of the file."""
        return sha256(self.path)

    def load(self) -> nn.Module:
        """The classifier."""
        return Classifier.load(self.path)


def make_extractor(
    given: str, weights: str | None = None, keys: tuple[str, str] = ("extractor", "weights")
) -> Extractor:
    """The extractor that ``given`` names; ``keys`` are the options that both came from.

    Raises:
        ConfigError: it is none, or a file is missing
    """
    from .backbones import Backbone
    from .inception import VGG16, Inception

    key, option = keys
    path = Path(given).expanduser()
    own = {"inception-v3-compat": Inception, "vgg16": VGG16}.get(given)
    if own is not None:
        return own(None if weights is None else Path(weights).expanduser(), option)
    if weights is not None:
        raise ConfigError(f"{option}: they are Inception's or VGG16's; {given} has its own")
    if path.suffix == ".safetensors":
        return ClassifierFile(path)
    if path.is_dir() or (given.count("/") == 1 and not given.startswith((".", "/", "~"))):
        return Backbone(str(path) if path.is_dir() else given, key)
    raise ConfigError(
        f"{key}: '{given}' is none of inception-v3-compat, vgg16, a .safetensors file of examples/train_extractor.py, "
        "a transformers model's folder or hub id"
    )


def as_pixels(images: Tensor, extractor: Extractor) -> Tensor:
    """Images (B,C,H,W) in [-1, 1] -> uint8 (B,channels,H,W), clamped and rounded; grey is repeated for colour."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.expand(-1, extractor.channels, -1, -1) if pixels.shape[1] == 1 else pixels
