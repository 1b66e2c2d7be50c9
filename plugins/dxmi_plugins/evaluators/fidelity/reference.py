"""What the metrics need of reference images: made once, kept in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import Samples
from dxmi_plugins.evaluators.extractors.base import Extractor
from dxmi_plugins.evaluators.fidelity.classes import class_figures
from dxmi_plugins.evaluators.fidelity.frechet import CHUNK, FrechetDistance, Gaussian
from dxmi_plugins.evaluators.fidelity.passes import (
    KeptClasses,
    KeptFeatures,
    KeptMoments,
    Pass,
    go_through,
    on_all,
    read_items,
)
from dxmi_plugins.evaluators.fidelity.resampled import KeptResamples, Resampled
from dxmi_plugins.evaluators.fidelity.scores import radii
from dxmi_plugins.evaluators.fidelity.statistics_files import place, read, write

Kind = str | Resampled
"""What is made of the images: ``moments``, ``features``, ``classes``, or distances of the data drawn again"""


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
        self.known: dict[tuple[Extractor, Kind], dict[str, Tensor]] = {}
        self.distances: dict[Extractor, FrechetDistance] = {}
        self.radii: dict[Extractor, Tensor] = {}
        self.drawn_classes: dict[tuple[Extractor, Resampled], list[dict[str, float]]] = {}

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

    def classes(self, extractor: Extractor) -> Tensor:
        """What the extractor takes each image for, (n,) in the images' order, after ``prepare``."""
        return self.known[extractor, "classes"]["classes"]

    def shares(self, extractor: Extractor) -> Tensor:
        """How many images of each of the extractor's classes there are, (K,), after ``prepare``."""
        return torch.bincount(self.classes(extractor), minlength=extractor.logits or 0)

    def drawn_again(self, extractor: Extractor, drawn: Resampled) -> list[dict[str, float]]:
        """``class_figures`` of each draw of the images themselves, after ``prepare``; found once."""
        if (extractor, drawn) not in self.drawn_classes:
            features, classes, shares = self.features(extractor), self.classes(extractor), self.shares(extractor)
            distance = self.distance(extractor)
            figures = [class_figures(features[i], classes[i], shares, distance) for i in drawn.rows(self.size)]
            self.drawn_classes[extractor, drawn] = figures
        return self.drawn_classes[extractor, drawn]

    def prepare(self, samples: Samples, extractor: Extractor, kinds: Sequence[Kind]) -> None:
        """Have these kinds ready; ``samples`` share the work among processes. What is drawn again needs ``moments``.

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
            self.extract(samples, extractor, missing)
            for kind in missing if self.fingerprint is not None else ():
                key = self.key(extractor, kind)
                write(place(key), key, self.known[extractor, kind])

    def extract(self, samples: Samples, extractor: Extractor, kinds: Sequence[Kind]) -> None:
        """One pass over the images, each process over its share; for floors alone over those that are drawn.

        Moments come before floors, which are held against them.
        """
        rows, keepers = samples.share(self.size), {kind: self.keeper(extractor, kind) for kind in kinds}
        alone = kinds[0] if len(kinds) == 1 else None
        if isinstance(alone, Resampled):
            rows = alone.among(rows, self.size)
        if isinstance(alone, Resampled) and (extractor, "features") in self.known:
            for part in torch.split(rows, CHUNK):
                keepers[alone].add(self.features(extractor)[part], None, part)
        else:
            passes = [Pass(extractor, list(keepers.values()))]
            go_through(read_items(self.images, rows), rows, passes, self.batch_size)
        for kind, keeper in sorted(keepers.items(), key=lambda found: isinstance(found[0], Resampled)):
            if isinstance(kind, Resampled):
                distances = [self.distance(extractor)(gaussian) for gaussian in keeper.reduced(samples)]
                self.known[extractor, kind] = {"distances": torch.tensor(distances, dtype=torch.float64)}
            elif kind == "moments":
                mean, covariance = keeper.reduced(samples)[0].gaussian()
                self.known[extractor, kind] = {"mean": mean, "covariance": covariance}
            else:
                self.known[extractor, kind] = {kind: keeper.gathered(samples)}

    def keeper(self, extractor: Extractor, kind: Kind) -> Any:
        """What keeps a kind during the pass."""
        if isinstance(kind, Resampled):
            return KeptResamples(extractor.dimension, self.size, kind)
        if kind == "classes":
            return KeptClasses()
        whole = KeptFeatures(extractor.dimension)
        return whole if kind == "features" else KeptMoments(extractor.dimension, self.size)

    def key(self, extractor: Extractor, kind: Kind) -> dict[str, str]:
        """All that these tensors depend on."""
        return {
            "kind": str(kind),
            "fingerprint": str(self.fingerprint),
            "size": str(self.size),
            **{key: str(value) for key, value in extractor.stamp().items()},
            "torch": torch.__version__,
        }
