"""FID, KID, Inception score, precision and recall, through torch-fidelity."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from dxmi.api import ConfigError

from .classifier import Classifier, sha256

INCEPTION = "inception-v3-compat"
METRICS = ("fid", "kid", "isc", "prc")


class Pixels(Dataset[Tensor]):
    """What torch-fidelity reads: uint8 (C,H,W) items. Values in [-1, 1] are clamped and rounded."""

    def __init__(self, items: Any, colour: bool):
        self.items, self.colour = items, colour

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        pixels: Tensor = ((self.items[index].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return pixels.expand(3, -1, -1) if self.colour and len(pixels) == 1 else pixels


class Fidelity:
    """Distances between samples and reference images in a feature space.

    Samples are images in [-1, 1]; as many are drawn as the reference has, unless ``samples`` says otherwise. Over
    Inception features the results are ``fid``, ``kid_mean``, ``is_mean``, …; over a classifier's they carry its file
    name: ``fd_<name>``, ``kd_<name>_mean``, ``is_<name>_mean``. All metrics use the one extractor, precision and recall
    included (as ADM's code does).

    Args:
        extractor: inception-v3-compat, or a safetensors file of examples/train_extractor.py
        weights: a local file with Inception's weights; null lets torch-fidelity find or fetch them
        metrics: some of fid, kid, isc, prc
        samples: number of samples; null takes as many as the reference has
        batch_size: images in one pass through the extractor
        cache: keep the reference's features on disk, under a key with its fingerprint and the extractor's hash
    """

    def __init__(
        self,
        extractor: str = INCEPTION,
        weights: str | None = None,
        metrics: list[str] | None = None,
        samples: int | None = None,
        batch_size: int = 256,
        cache: bool = True,
    ):
        self.metrics = list(METRICS) if metrics is None else metrics
        if not self.metrics or set(self.metrics) - set(METRICS):
            raise ConfigError(f"metrics: {self.metrics} are not some of {', '.join(METRICS)}")
        if samples is not None and samples < 2:
            raise ConfigError(f"samples: {samples} are too few for a distance; give at least 2")
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size} is not positive")
        if weights is not None and not Path(weights).is_file():
            raise ConfigError(f"weights: there is no file {weights}")
        self.classifier = extractor.endswith(".safetensors")
        if not self.classifier and extractor != INCEPTION:
            raise ConfigError(f"extractor: '{extractor}' is neither {INCEPTION} nor a .safetensors file")
        extractor = str(Path(extractor).expanduser()) if self.classifier else extractor
        if self.classifier and weights is not None:
            raise ConfigError("weights: they are Inception's; a classifier file has its own")
        self.name = Path(extractor).stem if self.classifier else "inception"
        self.samples, self.batch_size, self.cache = samples, batch_size, cache
        self.weights = Path(extractor) if self.classifier else None if weights is None else Path(weights)
        self.channels = Classifier.load(Path(extractor)).options["channels"] if self.classifier else 3
        self.options: dict[str, Any] = {"feature_extractor_weights_path": weights}
        if self.classifier:
            self.options = {"feature_extractor": register(Path(extractor))}
        elif "prc" in self.metrics:
            self.options["feature_extractor"] = INCEPTION

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n) -> (n,C,H,W)`` in [-1, 1]; the reference yields (C,H,W) in [-1, 1].

        Raises:
            ConfigError: too few images, other channels than the extractor's, or samples of another shape
            FloatingPointError: a sample is not finite
        """
        real = Pixels(reference, colour=self.channels == 3)
        n = len(real) if self.samples is None else self.samples
        least = 4 if "prc" in self.metrics else 2
        if min(n, len(real)) < least:
            raise ConfigError(f"samples: {', '.join(self.metrics)} need {least} samples and reference images or more")
        if len(real[0]) != self.channels:
            raise ConfigError(f"extractor: {self.name} reads {self.channels} channels, the images have {len(real[0])}")
        samples = draw(n)
        if samples.shape[1:] != reference[0].shape:
            raise ConfigError(f"samples are {tuple(samples.shape[1:])}, the reference {tuple(reference[0].shape)}")
        if not samples.isfinite().all():
            raise FloatingPointError("some samples are not finite numbers, so they have no distance to the data")
        fingerprint = getattr(reference, "fingerprint", None)
        key = f"dxmi-{fingerprint}-{len(real)}-{self._hash()[:16]}" if self.cache and fingerprint else None
        with torch.random.fork_rng():  # extractors are initialised before they are loaded: leave the run's noise alone
            found = torch_fidelity.calculate_metrics(
                input1=Pixels(samples.cpu(), colour=self.channels == 3),
                input2=real,
                input2_cache_name=key,
                cache=key is not None,
                cuda=torch.cuda.is_available(),
                batch_size=self.batch_size,
                kid_subset_size=min(1000, n, len(real)),
                isc_splits=min(10, n),
                save_cpu_ram=True,  # also keeps the loader in this process: the images are in memory
                verbose=False,
                **{metric: metric in self.metrics for metric in METRICS},
                **self.options,
            )
        return {self._key(k): float(v) for k, v in found.items()}

    def stamp(self) -> dict[str, Any]:
        """Implementation, version, extractor and the SHA-256 of its weights, resize rule, metric settings."""
        return {
            "implementation": f"torch-fidelity {version('torch-fidelity')}",
            "extractor": self.name,
            "weights_sha256": self._hash(),
            "resize": "none" if self.classifier else "TensorFlow 1 bilinear to 299",
            "kid": "100 subsets of at most 1000, cubic kernel",
            "precision_recall": "3 nearest neighbours",
        }

    def _hash(self) -> str:
        return sha256(self.weights) if self.weights else "weights of torch-fidelity"

    def _key(self, name: str) -> str:
        own = f"_{self.name}" if self.classifier else ""
        for long, inception, other in (
            (torch_fidelity.KEY_METRIC_FID, "fid", "fd"),
            ("kernel_inception_distance", "kid", "kd"),
            ("inception_score", "is", "is"),
        ):
            name = name.replace(long, other + own if own else inception)
        return name


def register(path: Path) -> str:
    """Make a classifier file known to torch-fidelity; returns the name it has there."""
    name = f"{path.stem}-{sha256(path)[:16]}"

    class Extractor(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features_list: list[str], **options: Any):
            super().__init__(name, features_list)
            self.classifier = Classifier.load(path)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
            outputs = dict(zip(("features", "logits"), self.classifier(pixels), strict=True))
            return tuple(outputs[layer].float() for layer in self.features_list)

    FEATURE_EXTRACTORS_REGISTRY[name] = Extractor
    return name
