"""A small image classifier in one safetensors file: a feature extractor for images that are not photographs."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dxmi.api import ConfigError
from dxmi.api.fingerprint import file_sha256
from dxmi_plugins.evaluators.extractors.base import Extractor


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (channels_in, channels_out):
        layers += [nn.Conv2d(i, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class Classifier(nn.Module):
    """Three convolutional stages with halving, average pool, ``features`` hidden units, logits.

    For images of at least 8 x 8. Input: uint8 (B,C,H,W). Output: features (B,features) and logits (B,classes).
    """

    def __init__(self, channels: int, classes: int, width: int = 16, features: int = 64):
        super().__init__()
        self.options = {"channels": channels, "classes": classes, "width": width, "features": features}
        self.body = nn.Sequential(_stage(channels, width), _stage(width, 2 * width), _stage(2 * width, 4 * width))
        self.hidden = nn.Linear(4 * width, features)
        self.head = nn.Linear(features, classes)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels uint8 (B,C,H,W) -> features (B,features), logits (B,classes)."""
        h = self.body(pixels.float() / 127.5 - 1).mean((2, 3))
        features = torch.relu(self.hidden(h))
        return features, self.head(features)

    def save(self, path: Path) -> None:
        """Weights and, in the header, the sizes."""
        save_file(self.state_dict(), path, metadata={"options": json.dumps(self.options, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Raises ConfigError if the file is missing or was not written by ``save``."""
        if not path.is_file():
            raise ConfigError("extractor", f"there is no file {path}", "examples/train_extractor.py makes one")
        try:
            with safe_open(path, "pt") as file:
                options = json.loads((file.metadata() or {})["options"])
                weights = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            model = cls(**options)
            model.load_state_dict(weights)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError("extractor", f"{path} is no classifier of examples/train_extractor.py") from error
        return model.eval()


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
        return file_sha256(self.path)

    def load(self) -> nn.Module:
        """The classifier."""
        return Classifier.load(self.path)
