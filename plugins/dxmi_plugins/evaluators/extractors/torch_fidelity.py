"""Inception and VGG16, by torch-fidelity."""

from __future__ import annotations

import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from dxmi.api import ConfigError
from dxmi.api.fingerprint import file_sha256
from dxmi_plugins.evaluators.extractors.base import Extractor

URL_VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"


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
            raise ConfigError(option, f"there is no file {weights}")
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
        return file_sha256(self.path) if self.path.is_file() else None

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
                self.option, f"{path} holds no weights of {self.usual} ({Path(self.url).name})"
            ) from error

    def fetch(self, path: Path) -> None:
        """Download the weights to where torch's hub keeps them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.prefix, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise ConfigError(
                self.option,
                f"{path} is missing, and {self.url} is out of reach",
                f"fetch {path.name} elsewhere and give its place as {self.option} "
                f"(to 'dxmi evaluate' as --evaluator.{self.option})",
            ) from error


class Inception(TorchFidelity):
    """Inception v3 of 2015, whose distance alone is FID: 2048 pooled features, and logits without their bias."""

    usual, resize, dimension, logits = "inception", "TensorFlow 1 bilinear to 299", 2048, 1008
    url, layers, kind = URL_INCEPTION_V3, ("2048", "logits_unbiased"), FeatureExtractorInceptionV3


class VGG16(TorchFidelity):
    """VGG16 of torchvision, 4096 features after its second hidden layer: the usual one for precision and recall."""

    usual, resize, dimension = "vgg16", "TensorFlow 1 bilinear to 224", 4096
    url, layers, kind = URL_VGG16, ("fc2_relu",), FeatureExtractorVGG16
