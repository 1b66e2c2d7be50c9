"""What the metrics need of reference images: made once, kept in memory and on disk."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import Samples
from dxmi_plugins.evaluators.extractors.base import Extractor
from dxmi_plugins.evaluators.fidelity.frechet import FrechetDistance, Gaussian
from dxmi_plugins.evaluators.fidelity.passes import KeptFeatures, KeptMoments, Pass, go_through, on_all, read_items
from dxmi_plugins.evaluators.fidelity.scores import radii
from dxmi_plugins.evaluators.fidelity.statistics_files import place, read, write


@runtime_checkable
class Fingerprinted(Protocol):
    """Images that say what they are."""

    fingerprint: str | None
    """SHA-256 of what is stored; None where nothing of theirs is worth a file in the cache"""


class Reference:
    """Moments and features of reference images.

    Args:
        images: (C,H,W) in [-1, 1] an item; with a ``fingerprint`` they can be cached
        batch_size: images in one pass through an extractor
        cache: whether to read and write files in torch's home
    """

    def __init__(self, images: Dataset[Tensor], batch_size: int, cache: bool):
        self.images, self.batch_size = images, batch_size
        self.size = len(images)  # type: ignore[arg-type]
        self.fingerprint = images.fingerprint if cache and isinstance(images, Fingerprinted) else None
        self.known: dict[tuple[Extractor, str], dict[str, Tensor]] = {}
        self.distances: dict[Extractor, FrechetDistance] = {}
        self.radii: dict[Extractor, Tensor] = {}

    def distance(self, extractor: Extractor) -> FrechetDistance:
        """The Fréchet distance to them, after ``prepare``; its eigenvectors are found once."""
        if extractor not in self.distances:
            moments = self.known[extractor, "moments"]
            self.distances[extractor] = FrechetDistance(Gaussian(moments["mean"], moments["covariance"]))
        return self.distances[extractor]

    def features(self, extractor: Extractor) -> Tensor:
        """The features (n,D) float32 in the images' order, after ``prepare``."""
        return self.known[extractor, "features"]["features"]

    def support(self, extractor: Extractor) -> tuple[Tensor, Tensor]:
        """Features (n,D) and their ``radii`` (n,), where the extractor runs, after ``prepare``."""
        features = self.features(extractor).to(extractor.device)
        if extractor not in self.radii:
            self.radii[extractor] = radii(features)
        return features, self.radii[extractor]

    def prepare(self, samples: Samples, extractor: Extractor, kinds: list[str]) -> None:
        """Have ``moments`` or ``features`` or both ready; ``samples`` share the work among processes.

        Raises:
            ConfigError: a cache does not match, or an image is of another size
        """
        missing = [kind for kind in kinds if (extractor, kind) not in self.known]
        for kind in [*missing]:
            if self.fingerprint is not None:
                key = self.key(extractor, kind)
                if on_all(samples)(place(key).is_file()):  # or they would not all take part in the pass
                    self.known[extractor, kind] = read(place(key), key)
                    missing.remove(kind)
        if missing:
            for kind, tensors in self.extract(samples, extractor, missing).items():
                self.known[extractor, kind] = tensors
                if self.fingerprint is not None:
                    key = self.key(extractor, kind)
                    write(place(key), key, tensors)

    def extract(self, samples: Samples, extractor: Extractor, kinds: list[str]) -> dict[str, dict[str, Tensor]]:
        """One pass over the images, each process over its share."""
        rows = samples.share(self.size)
        features, moments = KeptFeatures(extractor.dimension), KeptMoments(extractor.dimension, self.size)
        keepers: list[Any] = [{"features": features, "moments": moments}[kind] for kind in kinds]
        go_through(read_items(self.images, rows), rows, [Pass(extractor, keepers)], self.batch_size)
        tensors: dict[str, dict[str, Tensor]] = {}
        if "features" in kinds:
            tensors["features"] = {"features": features.gathered(samples)}
        if "moments" in kinds:
            gaussian = moments.reduced(samples)[0].gaussian()
            tensors["moments"] = {"mean": gaussian.mean, "covariance": gaussian.covariance}
        return tensors

    def key(self, extractor: Extractor, kind: str) -> dict[str, str]:
        """All that these tensors depend on."""
        return {
            "kind": kind,
            "fingerprint": str(self.fingerprint),
            "size": str(self.size),
            **{key: str(value) for key, value in extractor.stamp().items()},
            "torch": torch.__version__,
        }
