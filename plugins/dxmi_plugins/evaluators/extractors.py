"""Feature extractors: what turns uint8 images into the features and logits that metrics read."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from dxmi.api import ConfigError

from .classifier import Classifier, sha256

URL_VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"


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


class TorchFidelity(Extractor):
    """A network of torch-fidelity, from a file of weights, or where torch's hub keeps it or can fetch it."""

    library = f"torch-fidelity {version('torch-fidelity')}"
    usual: str
    """what distances over the weights of ``url`` are called after; those over others after their file and hash"""
    url: str
    layers: tuple[str, ...]
    kind: Any

    def __init__(self, weights: Path | None, option: str = "weights"):
        if weights is not None and not weights.is_file():
            raise ConfigError(f"{option}: there is no file {weights}")
        self.given, self.option = weights, option
        own = self.sha256
        self.name = self.usual if own is None or own.startswith(self.prefix) else f"{self.path.stem}_{own[:8]}"

    @property
    def prefix(self) -> str:
        """Of the SHA-256 of its weights, as torch's hub has it in their name."""
        return Path(self.url).stem.rsplit("-", 1)[1]

    @property
    def path(self) -> Path:
        """The file of its weights, whether it is there or not."""
        return self.given or Path(torch.hub.get_dir()) / "checkpoints" / Path(self.url).name

    @property
    def sha256(self) -> str | None:
        """Of the file."""
        return sha256(self.path) if self.path.is_file() else None

    def load(self) -> nn.Module:
        """torch-fidelity's network; the file may hold tensors and no code."""
        path = self.path
        if not path.is_file():
            self.fetch(path)
        try:
            torch.load(path, map_location="meta", weights_only=True)  # torch-fidelity would run what a pickle says
            return self.kind(self.usual, list(self.layers), feature_extractor_weights_path=str(path))  # type: ignore[no-any-return]
        except (RuntimeError, ValueError, EOFError, AttributeError, TypeError, pickle.UnpicklingError) as error:
            raise ConfigError(
                f"{self.option}: {path} holds no weights of {self.usual} ({Path(self.url).name})"
            ) from error

    def fetch(self, path: Path) -> None:
        """Download the weights to where torch's hub keeps them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.prefix, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise ConfigError(
                f"{self.option}: {path} is missing, and {self.url} is out of reach; fetch {path.name} elsewhere "
                f"and give its place as {self.option} (to 'dxmi evaluate' as --evaluator.{self.option})"
            ) from error


class Inception(TorchFidelity):
    """Inception v3 of 2015, whose distance alone is FID: 2048 pooled features, and logits without their bias."""

    usual, resize, dimension, logits = "inception", "TensorFlow 1 bilinear to 299", 2048, 1008
    url, layers, kind = URL_INCEPTION_V3, ("2048", "logits_unbiased"), FeatureExtractorInceptionV3


class VGG16(TorchFidelity):
    """VGG16 of torchvision, 4096 features after its second hidden layer: the usual one for precision and recall."""

    usual, resize, dimension = "vgg16", "TensorFlow 1 bilinear to 224", 4096
    url, layers, kind = URL_VGG16, ("fc2_relu",), FeatureExtractorVGG16


def make_extractor(
    given: str, weights: str | None = None, keys: tuple[str, str] = ("extractor", "weights")
) -> Extractor:
    """The extractor that ``given`` names; ``keys`` are the options that both came from.

    Raises:
        ConfigError: it is none, or a file is missing
    """
    from .backbones import Backbone

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
