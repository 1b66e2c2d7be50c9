"""What is kept of a pass over the samples, and the figures that it gives. ``fidelity`` is the plugin."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from dxmi.api import ConfigError, Samples
from dxmi_plugins.evaluators.extractors.base import Extractor
from dxmi_plugins.evaluators.fidelity.classes import RIGHT, class_figures, floors, too_few, warn_of_missing
from dxmi_plugins.evaluators.fidelity.frechet import PARTS, FrechetDistance, at_infinity, bootstrap, merged
from dxmi_plugins.evaluators.fidelity.nearest import KeptNearest
from dxmi_plugins.evaluators.fidelity.passes import (
    KeptAccuracy,
    KeptClasses,
    KeptFeatures,
    KeptMoments,
    KeptScore,
    Pass,
)
from dxmi_plugins.evaluators.fidelity.reference import Kind, Reference
from dxmi_plugins.evaluators.fidelity.resampled import Resampled
from dxmi_plugins.evaluators.fidelity.scores import SEED, kernel_distance, precision_recall


class Wanted(NamedTuple):
    """Metrics, and over which features."""

    metrics: list[str]
    extractor: Extractor
    prc_extractor: Extractor
    infinity: bool
    resamples: int
    draws: int = 0
    """of the data again, for floors"""

    def keepers(self, n: int, labels: Tensor | None, real: Reference | None = None) -> dict[str, Any]:
        """What is kept of n samples, by name; labels (n,) are those that they were drawn at."""
        e, keepers = self.extractor, dict[str, Any]()
        if "fid" in self.metrics:
            keepers["moments"] = KeptMoments(e.dimension, n, PARTS if self.infinity else 1)
        own_prc = "prc" in self.metrics and self.prc_extractor is e
        if self.resamples or own_prc or {"kid", "shares"} & set(self.metrics):
            keepers["features"] = KeptFeatures(e.dimension)
        if "isc" in self.metrics:
            keepers["isc"] = KeptScore(n, e.logits or 0)
        if "accuracy" in self.metrics and labels is not None:
            keepers["accuracy"] = KeptAccuracy(e.logits or 0, labels)
        if "shares" in self.metrics and (few := too_few(n, e)):
            warnings.warn(f"shares: {few}, so they are left out", stacklevel=3)
        elif "shares" in self.metrics:
            keepers["classes"] = KeptClasses()
        if "prc" in self.metrics and self.prc_extractor is not e:
            keepers["prc"] = KeptFeatures(self.prc_extractor.dimension)
        if "nearest" in self.metrics and real is not None:
            keepers["nearest"] = KeptNearest(real)
        return keepers

    def passes(self, keepers: dict[str, Any]) -> list[Pass]:
        """Which extractor each keeper reads."""
        others = {"prc": self.prc_extractor}
        if "nearest" in keepers:
            others["nearest"] = keepers["nearest"].extractor
        main = Pass(self.extractor, [keeper for name, keeper in keepers.items() if name not in others])
        rest = [Pass(extractor, [keepers[name]]) for name, extractor in others.items() if name in keepers]
        return [p for p in (main, *rest) if p.keepers]

    def needs(self, n: int = 0) -> dict[Extractor, list[Kind]]:
        """The extractors that are used, and what is needed of the reference over each beside n samples."""
        wanted = set(self.metrics)
        kinds: dict[Kind, set[str]] = {
            "moments": {"fid", "shares"},
            "features": {"kid", "shares"},
            "classes": {"shares"},
        }
        if self.draws and n:
            kinds[Resampled(n, self.draws)] = {"fid"}
        needed = {self.extractor: [kind for kind, of in kinds.items() if of & wanted]}
        if wanted <= {"prc", "nearest"}:
            needed = {}
        if "prc" in wanted and "features" not in needed.setdefault(self.prc_extractor, []):
            needed[self.prc_extractor].append("features")
        return needed

    def prepare(self, real: Reference | None, samples: Samples, n: int) -> None:
        """Have networks and reference ready, so that what is wrong with them is found before n samples are drawn.

        Raises:
            ConfigError: weights are missing, or the reference is too small, unreadable or has other channels
        """
        for extractor in self.needs():
            extractor.ready()
        if real is not None:
            self.check("reference images", real.size)
            self.check_channels(real.images[0].shape)
            for extractor, kinds in self.needs(n).items():
                real.prepare(samples, extractor, kinds)

    def figures(
        self,
        keepers: dict[str, Any],
        samples: Samples,
        n: int,
        real: Reference | None,
        published: FrechetDistance | None,
    ) -> dict[str, float]:
        """All figures of n samples by name, the same on every process."""
        metrics: dict[str, float] = {}
        features = keepers["features"].gathered(samples) if "features" in keepers else None
        if "moments" in keepers:
            to = published if real is None else real.distance(self.extractor)
            assert to is not None
            metrics |= self.distances(keepers["moments"], features, samples, to)
            metrics |= self.floors(real, n)
        if "classes" in keepers and real is not None and features is not None:
            metrics |= self.shares(features, keepers["classes"].gathered(samples), real)
        if "kid" in self.metrics and real is not None and features is not None:
            mean, std = kernel_distance(features, real.features(self.extractor))
            metrics |= {self.key("kid", "kd") + "_mean": mean, self.key("kid", "kd") + "_std": std}
        if "isc" in keepers:
            mean, std = keepers["isc"].result(samples.reduce)
            metrics |= {self.key("is", "is") + "_mean": mean, self.key("is", "is") + "_std": std}
        if "prc" in self.metrics and real is not None:
            own = keepers.get("prc")
            drawn = features if own is None else own.gathered(samples)
            assert drawn is not None
            metrics |= precision_recall(drawn.to(self.prc_extractor.device), *real.support(self.prc_extractor))
        metrics |= keepers["nearest"].result(samples) if "nearest" in keepers else {}
        return metrics | (keepers["accuracy"].result(samples.reduce) if "accuracy" in keepers else {})

    def distances(
        self, kept: KeptMoments, features: Tensor | None, samples: Samples, distance: FrechetDistance
    ) -> dict[str, float]:
        """The Fréchet distance, with its limit and interval where they are wanted."""
        parts, key = kept.reduced(samples), self.key("fid", "fd")
        metrics = {key: distance(merged(parts).gaussian())}
        if self.infinity:
            metrics[f"{key}_inf"] = at_infinity(parts, distance)
        if self.resamples and features is not None:
            metrics[f"{key}_low"], metrics[f"{key}_high"] = bootstrap(features, distance, self.resamples, SEED)
        return metrics

    def floors(self, real: Reference | None, n: int) -> dict[str, float]:
        """What the distance would be if n of the reference's own images were drawn again; nothing without images."""
        if real is None or not self.draws:
            return {}
        distances = real.known[self.extractor, Resampled(n, self.draws)]["distances"].tolist()
        return floors([{self.key("fid", "fd"): distance} for distance in distances])

    def shares(self, features: Tensor, classes: Tensor, real: Reference) -> dict[str, float]:
        """``class_figures`` of samples, features (n,D) and classes (n,), and their floors."""
        e, data = self.extractor, real.shares(self.extractor)
        warn_of_missing(classes, data, e.name)
        own = class_figures(features, classes, data, real.distance(e))
        again = floors(real.drawn_again(e, Resampled(len(classes), self.draws))) if self.draws else {}
        right = self.key("fid", "fd") + "_"
        return {(right if key.startswith(RIGHT) else "") + key: value for key, value in (own | again).items()}

    def key(self, inception: str, other: str) -> str:
        """Inception's distances have names of their own; others carry the extractor's."""
        return inception if self.extractor.name == "inception" else f"{other}_{self.extractor.name}"

    def check(self, what: str, size: int) -> None:
        """Raise ConfigError if "samples" or "reference images" are too few; warn where covariances are singular."""
        least = 2 * PARTS if self.infinity else 4 if "prc" in self.metrics else 2
        if size < least:
            raise ConfigError("samples", f"{', '.join(self.metrics)} need {least} {what} or more, there are {size}")
        part = size // PARTS if self.infinity and what == "samples" else size
        if "fid" in self.metrics and part <= self.extractor.dimension:
            where = "samples in a part" if part < size else what
            warnings.warn(
                f"samples: {part} {where} for the {self.extractor.dimension} features of {self.extractor.name}: "
                "the covariance is singular, and the distance says little",
                stacklevel=3,
            )

    def checked(self, batches: Iterator[Tensor], real: Reference | None) -> Iterator[Tensor]:
        """The samples' batches (B,C,H,W), as they come.

        Raises:
            ConfigError: they are of another size than the reference, or have other channels than an extractor reads
        """
        first = None
        for batch in batches:
            if first is None:
                first = batch.shape[1:]
                self.check_channels(first)
                if real is not None and real.images[0].shape[1:] != first[1:]:
                    raise ConfigError(
                        "samples", f"they are {tuple(first)}, the reference {tuple(real.images[0].shape)}"
                    )
            if batch.shape[1:] != first:
                raise ConfigError("samples", f"one is {tuple(batch.shape[1:])}, the first {tuple(first)}")
            yield batch

    def check_channels(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError if an extractor does not read images (C,H,W); say so if it reads grey ones as colour."""
        for extractor in self.needs():
            if len(shape) != 3 or shape[0] not in (extractor.channels, 1):
                has = f"have {shape[0]}" if len(shape) == 3 else f"are {tuple(shape)}"
                raise ConfigError(
                    "extractor", f"{extractor.name} reads {extractor.channels} channels, the images {has}"
                )
            if shape[0] != extractor.channels:
                warnings.warn(
                    f"extractor: {extractor.name} reads colour; grey images are shown to it as such", stacklevel=3
                )
