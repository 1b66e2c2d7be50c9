"""FID, KID, Inception score, precision and recall, and accuracy of classes, over any extractor's features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, as_samples
from dxmi.api.errors import check_some, require
from dxmi.api.fingerprint import file_sha256
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.fidelity.classes import too_few
from dxmi_plugins.evaluators.fidelity.figures import Wanted
from dxmi_plugins.evaluators.fidelity.frechet import PARTS, FrechetDistance
from dxmi_plugins.evaluators.fidelity.passes import go_through, on_all
from dxmi_plugins.evaluators.fidelity.reference import Reference
from dxmi_plugins.evaluators.fidelity.scores import SEED
from dxmi_plugins.evaluators.fidelity.statistics_files import read_published

INCEPTION = "inception-v3-compat"
FLOOR_DRAWS = 5


UNTOLD = "not told by the file"


class Fidelity:
    """Distances between samples and reference images in a feature space (TOOLBOX C), by torch-fidelity's definitions.

    Samples are images in [-1, 1]; as many are drawn as the reference has, unless ``samples`` says otherwise. Over
    Inception features the results are ``fid``, ``kid_mean``, ``is_mean``, …; over others they carry the extractor's
    name: ``fd_<name>``, ``kd_<name>_mean``, ``is_<name>_mean``. ``fid``, ``isc`` and ``accuracy`` are streamed: their
    memory does not grow with the number of samples. ``kid``, ``prc``, ``shares`` and ``bootstrap`` keep all features,
    ``nearest`` the reference's images. Beside a Fréchet distance stand ``_floor`` and ``_floor_std``: what as many of
    the reference's own images get that are drawn at random, with replacement.

    Args:
        extractor: inception-v3-compat, vgg16, efficientnet_lite0, a safetensors file of examples/train_extractor.py, or
            the folder or hub id of an image backbone of transformers, such as facebook/dinov2-base
        weights: a local file with the weights of Inception or VGG16; null takes torch hub's, or fetches them
        metrics: some of fid, kid, isc, prc, accuracy, shares, nearest; null takes all but nearest that the extractor
            and the samples' labels allow. shares: how far class shares are off, and the distance with them put right
            (MATH 3.10), by the extractor's own classes; nearest: distances to the nearest reference images
        samples: number of samples; null takes as many as the reference has
        batch_size: images in one pass through the extractor
        cache: keep the reference's statistics on disk, under a key with its fingerprint and the extractor's hash
        prc_extractor: another extractor for precision and recall, such as vgg16 (Kynkäänniemi et al. 2019); null takes
            the same, as ADM's code does
        prc_weights: its weights, as ``weights``
        reference_statistics: an .npz file with mu and sigma, as EDM, ADM and clean-fid publish them, for fid in place
            of a reference
        infinity: also the distance extrapolated to infinitely many samples, ``fid_inf`` (Chong and Forsyth 2020)
        bootstrap: resamples for the interval ``fid_low`` to ``fid_high`` that holds 95 % of distances of as many other
            samples; 0 for none. All features of the samples are in memory for it.
        floor_draws: how often the data are drawn again for a floor; 0 for none

    Raises:
        ConfigError: an option is impossible, or a file is missing
    """

    METRICS = ("fid", "kid", "isc", "prc", "accuracy", "shares", "nearest")
    HIGHER = ("is_", "precision", "recall", "f_score", "accuracy", "class_share_min")
    """prefixes of the figures that are better when they are higher"""

    def __init__(
        self,
        extractor: str = INCEPTION,
        weights: str | None = None,
        metrics: list[str] | None = None,
        samples: int | None = None,
        batch_size: int = 256,
        cache: bool = True,
        prc_extractor: str | None = None,
        prc_weights: str | None = None,
        reference_statistics: str | None = None,
        infinity: bool = False,
        bootstrap: int = 0,
        floor_draws: int = FLOOR_DRAWS,
    ):
        check_some("metrics", metrics, self.METRICS)
        if samples is not None and samples < 2:
            raise ConfigError("samples", f"{samples} are too few for a distance", "give at least 2")
        if batch_size < 1:
            raise ConfigError("batch_size", f"{batch_size} is not positive")
        if bootstrap < 0 or bootstrap == 1:
            raise ConfigError(
                "bootstrap", f"{bootstrap} resamples give no interval", "give 0 for none, or some hundreds"
            )
        require(floor_draws >= 0, "floor_draws", f"{floor_draws} is negative", "give 0 for none")
        if prc_weights is not None and prc_extractor is None:
            raise ConfigError("prc_weights", "they are those of prc_extractor", "give that too")
        self.extractor = make_extractor(extractor, weights)
        self.prc_extractor = self.extractor
        if prc_extractor is not None:
            self.prc_extractor = make_extractor(prc_extractor, prc_weights, ("prc_extractor", "prc_weights"))
        self.published = None if reference_statistics is None else Path(reference_statistics).expanduser()
        self.given, self.samples, self.batch_size, self.cache = metrics, samples, batch_size, cache
        self.infinity, self.bootstrap, self.floor_draws = infinity, bootstrap, floor_draws
        self.reference: Reference | None = None
        self._check_options()

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw`` are samples (n,C,H,W) in [-1, 1]; the reference yields (C,H,W) in [-1, 1].

        With ``reference_statistics`` a reference may be None. Networks and reference are read before a sample is drawn.

        Raises:
            ConfigError: weights are missing, too few images, other channels than the extractor's, or other shapes
            FloatingPointError: a sample is not finite
        """
        samples = as_samples(draw)
        n, real = self._sizes(reference)
        labels = samples.labels(n)
        metrics = self._metrics(labels, n)
        wanted = Wanted(metrics, self.extractor, self.prc_extractor, self.infinity, self.bootstrap, self.floor_draws)
        published = self._distance if self.published is not None and "fid" in wanted.metrics else None
        wanted.prepare(real, samples, n)
        rows = samples.rows(n)
        total = int(samples.reduce(torch.tensor(len(rows))))  # a stored set may have fewer
        wanted.check("samples", total)
        if total != n and real is not None:
            real.prepare(samples, self.extractor, wanted.needs(total).get(self.extractor, []))
        keepers = wanted.keepers(total, labels, real)
        batches = wanted.checked(samples.batches(n), real)
        finite = go_through(batches, rows, wanted.passes(keepers), self.batch_size)
        if not on_all(samples)(bool(finite)):
            raise FloatingPointError("some samples are not finite numbers, so they have no distance to the data")
        return wanted.figures(keepers, samples, total, real, published)

    def stamp(self) -> dict[str, Any]:
        """Implementation, version, extractor with the SHA-256 of its weights and its resize rule, metric settings."""
        own, other = self.extractor.stamp(), self.prc_extractor.stamp()
        return {
            "implementation": f"torch-fidelity {version('torch-fidelity')}, streaming float64 moments",
            "extractor": own.pop("name"),
            **own,
            "fid": "n - 1 in the covariance, eigenvalues of the product",
            "kid": "100 subsets of at most 1000, cubic kernel, unbiased",
            "isc": f"10 splits after a permutation of seed {SEED}",
            "precision_recall": "3 nearest neighbours",
            "precision_recall_extractor": other,
            "reference_statistics": None
            if self.published is None
            else {"name": self.published.name, "sha256": file_sha256(self.published), "resize": UNTOLD},
            "infinity": f"{PARTS} disjoint parts, linear in 1/n",
            "bootstrap": self.bootstrap,
            **({} if self.floor_draws == FLOOR_DRAWS else {"floor_draws": self.floor_draws}),  # absent of old ones
        }

    @cached_property
    def _distance(self) -> FrechetDistance:
        """The distance to the published moments; what they leave open is warned of."""
        assert self.published is not None
        moments, own = read_published(self.published, self.extractor), self.extractor
        warnings.warn(
            f"reference_statistics: {self.published.name} does not tell its resize rule; the distance holds only if "
            f"it was made with that of {own.name}, {own.resize} (clean-fid's files are made with another)",
            stacklevel=3,
        )
        return FrechetDistance(moments)

    def _check_options(self) -> None:
        """Raise ConfigError where options contradict each other."""
        given = self.given or []
        if "isc" in given and self.extractor.logits is None:
            raise ConfigError(
                "metrics", f"isc needs logits, which {self.extractor.name} has not", "take another extractor"
            )
        if "shares" in given and self.extractor.logits is None:
            raise ConfigError(
                "metrics", f"shares needs classes, which {self.extractor.name} has not", "take another extractor"
            )
        if "accuracy" in given and not self.extractor.labelled:
            raise ConfigError("metrics", "accuracy needs a classifier of the data's labels as extractor")
        if self.prc_extractor is not self.extractor and self.given is not None and "prc" not in given:
            raise ConfigError("prc_extractor", "metrics do not ask for prc")
        if (self.infinity or self.bootstrap) and self.given is not None and "fid" not in given:
            raise ConfigError(f"{'infinity' if self.infinity else 'bootstrap'}", "metrics do not ask for fid")
        if self.published is not None:
            why = "published statistics are for fid alone, and the rest needs the reference's images; leave it out"
            for metric in given:
                if metric in ("kid", "prc", "shares", "nearest"):
                    raise ConfigError("metrics", f"{metric}: {why}")
            if self.given is None and self.prc_extractor is not self.extractor:
                raise ConfigError("prc_extractor", f"{why}")
            read_published(self.published, self.extractor)

    def _metrics(self, labels: Tensor | None, n: int) -> list[str]:
        """Those of n samples that are asked for, or all that can be had; ``nearest`` costs more and has to be asked."""
        known = range(self.extractor.logits or 0) if self.extractor.labelled else ()
        judged = labels is not None and all(label in known for label in labels.tolist())
        if self.given is None:
            out = {"isc": self.extractor.logits is None, "accuracy": not judged, "nearest": True}
            out |= {"kid": self.published is not None, "prc": self.published is not None}
            out |= {"shares": self.published is not None or not self.extractor.labelled}
            return [m for m in self.METRICS if not out.get(m)]
        if "shares" in self.given and (few := too_few(n, self.extractor)):
            raise ConfigError("samples", few, "give more, or leave shares out of metrics")
        if "accuracy" not in self.given or judged:
            return self.given
        rest = [m for m in self.given if m != "accuracy"]
        if labels is not None:
            raise ConfigError("metrics", f"accuracy: {self.extractor.name} knows labels 0..{self.extractor.logits - 1}")  # type: ignore[operator]
        if not rest:
            raise ConfigError("metrics", "accuracy needs samples that were drawn at labels, and these were not")
        warnings.warn("metrics: accuracy is left out of samples that were drawn at no labels", stacklevel=3)
        return rest

    def _sizes(self, reference: Dataset[Tensor] | None) -> tuple[int, Reference | None]:
        """How many samples to draw, and the reference, the same object as long as the images are."""
        if reference is None:
            if self.published is None or self.samples is None:
                key = "samples" if self.published else "reference_statistics"
                raise ConfigError(key, "without reference images, give it")
            return self.samples, None
        if self.reference is None or self.reference.images is not reference:
            self.reference = Reference(reference, self.batch_size, self.cache)
        return self.samples or self.reference.size, None if self.published else self.reference
