"""Streaming moments, the Fréchet distance of Gaussians, its bootstrap and its limit of infinitely many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

PARTS = 8  # disjoint parts of the samples that the limit is extrapolated from; a power of 2


CHUNK = 4096  # features in one update of moments


class Gaussian(NamedTuple):
    """Mean and covariance of features, float64."""

    mean: Tensor
    """(D,)"""
    covariance: Tensor
    """(D,D), with n - 1 in the denominator"""


class Moments:
    """Count, mean and scatter of rows that come in batches, in float64: ``D^2`` numbers however many rows there are.

    ``scatter`` is the sum of the outer products of the rows less their mean. Batches are merged as in Chan, Golub and
    LeVeque 1983, so that a large mean costs no digits.
    """

    def __init__(self, dimension: int):
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    def update(self, x: Tensor, times: Tensor | None = None) -> None:
        """Take in rows (B,D), each once or as many ``times`` (B,) as are told; the sums stay on their device."""
        if times is not None:
            return self._update(x, times)
        if len(x):
            x = x.double()
            mean = x.mean(0)
            self._merge(len(x), mean, (x - mean).T @ (x - mean))

    def _update(self, x: Tensor, times: Tensor) -> None:
        drawn = times.nonzero().flatten()
        if len(drawn):
            count, x, weights = int(times.sum()), x[drawn.to(x.device)].double(), times[drawn].double().to(x.device)
            mean = weights @ x / count
            self._merge(count, mean, ((x - mean) * weights[:, None]).T @ (x - mean))

    def merge(self, other: Moments) -> None:
        """Take in the rows of others."""
        if other.count:
            self._merge(other.count, other.mean, other.scatter)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        self.mean, self.scatter = self.mean.to(mean.device), self.scatter.to(mean.device)
        delta = mean - self.mean
        self.mean += delta * (count / total)
        self.scatter += scatter + delta.outer(delta) * (self.count * count / total)
        self.count = total

    def reduced(self, reduce: Callable[[Tensor], Tensor]) -> Moments:
        """Those of all processes' rows, on the CPU; ``reduce`` sums a tensor over processes."""
        own, total = self.mean.cpu(), Moments(len(self.mean))
        total.count = int(reduce(torch.tensor(self.count)))
        total.mean = reduce(own * (self.count / max(1, total.count)))
        delta = own - total.mean
        total.scatter = reduce(self.scatter.cpu() + self.count * delta.outer(delta))
        return total

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance; needs two rows."""
        return Gaussian(self.mean, self.scatter / (self.count - 1))


def weighted(features: Tensor, weights: Tensor) -> Gaussian:
    """Mean and unbiased covariance of rows (n,D) on the CPU, each as much as its weight (n,) >= 0 says.

    With ``w`` their shares of the sum, the scatter is divided by ``1 - sum w^2``: equal weights give ``n - 1``.
    """
    w = weights.double() / weights.double().sum()
    parts = list(zip(torch.split(features, CHUNK), torch.split(w, CHUNK), strict=True))
    mean = torch.zeros(features.shape[1], dtype=torch.float64)
    scatter = mean.outer(mean)
    for x, share in parts:
        mean += share @ x.double()
    for x, share in parts:
        scatter += ((x - mean) * share[:, None]).T @ (x - mean)
    return Gaussian(mean, scatter / (1 - w.square().sum()))


def merged(parts: Sequence[Moments]) -> Moments:
    """The moments of all their rows together."""
    total = Moments(len(parts[0].mean))
    for part in parts:
        total.merge(part)
    return total


class FrechetDistance:
    """``|m - n|^2 + tr(A + B - 2 (A B)^(1/2))`` between N(m, A) and a reference N(n, B) (Heusel et al. 2017).

    The trace of the root is the sum of the roots of the eigenvalues of ``A B``, as in torch-fidelity. They are those of
    the symmetric ``B^(1/2) A B^(1/2)`` too, which takes a fraction of the time. Of singular covariances, eigenvalues
    within rounding are taken for 0: their roots would add up to noise.
    """

    def __init__(self, reference: Gaussian):
        self.reference = reference
        values, vectors = torch.linalg.eigh(reference.covariance)
        self.root = vectors * roots(values)

    def __call__(self, samples: Gaussian) -> float:
        """The distance of N(m, A) to the reference."""
        values = torch.linalg.eigvalsh(self.root.T @ samples.covariance @ self.root)
        traces = samples.covariance.trace() + self.reference.covariance.trace()
        shift = (samples.mean - self.reference.mean).square().sum()
        return float(shift + traces - 2 * roots(values).sum())


def roots(values: Tensor) -> Tensor:
    """Square roots of the eigenvalues (D,) of a positive matrix, 0 of those that rounding cannot tell from 0."""
    return values.where(values > values.max() * len(values) * torch.finfo(values.dtype).eps, 0).sqrt()


def at_infinity(parts: Sequence[Moments], distance: Callable[[Gaussian], float]) -> float:
    """The distance of infinitely many samples: its bias is linear in 1/n (Chong and Forsyth 2020).

    parts: moments of disjoint random parts of the samples, a power of 2 of them. They are put together to
    n/8, n/4, n/2 and n samples, and at each size the distance is averaged over all parts of that size: no features
    need be kept, and no sample is left out.
    """
    inverses, distances = [], []
    groups = list(parts)
    while True:
        inverses.append(float(np.mean([1 / group.count for group in groups])))
        distances.append(float(np.mean([distance(group.gaussian()) for group in groups])))
        if len(groups) == 1:
            return intercept(inverses, distances)
        groups = [merged(pair) for pair in zip(groups[::2], groups[1::2], strict=True)]


def intercept(inverses: Sequence[float], distances: Sequence[float]) -> float:
    """Where the line through distances at ``1/n`` is at 0, by least squares."""
    return float(np.polyfit(inverses, distances, 1)[1])


def bootstrap(
    features: Tensor, distance: Callable[[Gaussian], float], resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Where the distance of ``len(features)`` other samples is expected, at this level; the reference stays as it is.

    Resampling adds the bias of a distance over n samples once more, so the resamples' quantiles less their mean are
    put around the distance of ``features`` (n,D), all of which are in memory.
    """
    generator, whole = Generator().manual_seed(seed), Moments(features.shape[1])
    for part in torch.split(features, CHUNK):
        whole.update(part)
    distances = []
    for _ in range(resamples):
        moments = Moments(features.shape[1])
        for rows in torch.split(torch.randint(len(features), (len(features),), generator=generator), CHUNK):
            moments.update(features[rows])
        distances.append(distance(moments.gaussian()))
    low, high = np.quantile(np.array(distances) - np.mean(distances), [(1 - level) / 2, (1 + level) / 2])
    centre = distance(whole.gaussian())
    return float(centre + low), float(centre + high)
