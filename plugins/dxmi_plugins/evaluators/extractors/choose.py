"""Which extractor a name means."""

from __future__ import annotations

from pathlib import Path

from dxmi.api import ConfigError
from dxmi_plugins.evaluators.extractors.base import Extractor
from dxmi_plugins.evaluators.extractors.classifier import ClassifierFile


def make_extractor(
    given: str, weights: str | None = None, keys: tuple[str, str] = ("extractor", "weights")
) -> Extractor:
    """The extractor that ``given`` names; ``keys`` are the options that both came from.

    Raises:
        ConfigError: it is none, or a file is missing
    """
    from dxmi_plugins.evaluators.extractors.efficientnet import EfficientNet
    from dxmi_plugins.evaluators.extractors.torch_fidelity import VGG16, Inception
    from dxmi_plugins.evaluators.extractors.transformers import Backbone

    key, option = keys
    path = Path(given).expanduser()
    own = {"inception-v3-compat": Inception, "vgg16": VGG16}.get(given)
    if own is not None:
        return own(None if weights is None else Path(weights).expanduser(), option)
    if weights is not None:
        raise ConfigError(option, "they are Inception's or VGG16's", f"{given} has its own")
    if given == EfficientNet.name:
        return EfficientNet(key)
    if path.suffix == ".safetensors":
        return ClassifierFile(path)
    if path.is_dir() or (given.count("/") == 1 and not given.startswith((".", "/", "~"))):
        return Backbone(str(path) if path.is_dir() else given, key)
    raise ConfigError(
        key,
        f"'{given}' is none of inception-v3-compat, vgg16, efficientnet_lite0, a .safetensors file of "
        "examples/train_extractor.py, a transformers model's folder or hub id",
    )
