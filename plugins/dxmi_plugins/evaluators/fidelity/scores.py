"""Metrics of features and logits beside the Fréchet distance. ``fidelity`` is the plugin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

SPLITS = 10


NEIGHBOURS = 3


SUBSET = 1000


ROWS = 512  # points whose distances to all others are in memory at a time


SEED = 2020  # torch-fidelity's, of its permutation for the Inception score and its subsets for KID


def positions(n: int) -> Tensor:
    """The place of each of n rows in torch-fidelity's order, (n,) long: it shuffles samples before it splits them."""
    return torch.from_numpy(np.argsort(np.random.RandomState(SEED).permutation(n)))


class InceptionScore:
    """``exp(mean_i KL(p_i || q))`` of each of ten splits, q the mean of their p (Salimans et al. 2016).

    That is the mean of ``sum p log p`` less ``sum q log q``, so sums over each split are all that is kept: one number
    for each logit.
    """

    def __init__(self, n: int, logits: int):
        splits = min(SPLITS, n)
        ends = torch.tensor([(i + 1) * n // splits for i in range(splits)])
        self.split = torch.searchsorted(ends, positions(n), right=True)
        self.sums = torch.zeros(splits, logits + 2, dtype=torch.float64)  # of p, of sum p log p, of ones

    def add(self, logits: Tensor, rows: Tensor) -> None:
        """Logits (B,K) of the samples with these indices (B,)."""
        logits = logits.double()
        p, log_p = logits.softmax(1), logits.log_softmax(1)
        terms = torch.cat([p, (p * log_p).sum(1, keepdim=True), torch.ones_like(p[:, :1])], 1)
        self.sums = self.sums.to(terms.device).index_add_(0, self.split[rows].to(terms.device), terms)

    def result(self, reduce: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Mean and spread over splits; ``reduce`` sums a tensor over processes."""
        sums = reduce(self.sums.cpu())
        q, minus_entropy = sums[:, :-2] / sums[:, -1:], sums[:, -2] / sums[:, -1]
        scores = (minus_entropy - torch.xlogy(q, q).sum(1)).exp()
        return float(scores.mean()), float(scores.std(correction=0))


class Accuracy:
    """The share of samples that a classifier takes for what they were drawn at, over all and of each class."""

    def __init__(self, classes: int):
        self.sums = torch.zeros(classes, 2, dtype=torch.float64)  # of those that are right, of ones

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (B,K) and labels (B,) in 0..K-1."""
        right = (logits.argmax(1).cpu() == labels).double()
        self.sums.index_add_(0, labels, torch.stack([right, torch.ones_like(right)], 1))

    def result(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """``accuracy``, and ``accuracy/CLASS`` of each class that was drawn."""
        right, all_ = reduce(self.sums).T
        own = {f"accuracy/{c}": float(right[c] / all_[c]) for c in all_.nonzero().flatten().tolist()}
        return {"accuracy": float(right.sum() / all_.sum()), **own}


def kernel_distance(features: Tensor, reference: Tensor) -> tuple[float, float]:
    """KID: mean and spread over 100 subsets of the unbiased squared MMD with a cubic kernel (Binkowski et al. 2018).

    Features (N,D) and (M,D); torch-fidelity's subsets, in float64.
    """
    size = min(SUBSET, len(features), len(reference))
    result = kid_features_to_metric(
        features.double(), reference.double(), kid_subset_size=size, rng_seed=SEED, verbose=False
    )
    return result[KEY_METRIC_KID_MEAN], result[KEY_METRIC_KID_STD]


def precision_recall(features: Tensor, reference: Tensor, reference_radii: Tensor | None = None) -> dict[str, float]:
    """Shares of samples among the reference, and of the reference among samples (Kynkäänniemi et al. 2019).

    A point is among others within the distance of one of them to its third nearest neighbour. Features (N,D) and
    (M,D), on any device; ``reference_radii`` (M,) are those of ``radii``, where they are known already. ``f_score`` is
    the harmonic mean.
    """
    own = radii(reference) if reference_radii is None else reference_radii
    precision, recall = covered(features, reference, own), covered(reference, features, radii(features))
    return {
        "precision": precision,
        "recall": recall,
        "f_score": 2 * precision * recall / max(1e-5, precision + recall),
    }


def radii(support: Tensor) -> Tensor:
    """Squared distances (M,) float64 of the support (M,D) to their third neighbours; the nearest to each is itself."""
    support = support.double()
    parts = torch.split(support, ROWS)
    return torch.cat([nearest(squares(part, support)) for part in parts])


def covered(points: Tensor, support: Tensor, radii: Tensor) -> float:
    """The share of points (N,D) that are among the support (M,D), within its ``radii`` (M,)."""
    points, support = points.double(), support.double()
    inside = [(squares(part, support) <= radii).any(1) for part in torch.split(points, ROWS)]
    return float(torch.cat(inside).double().mean())


def nearest(squares: Tensor) -> Tensor:
    """Of each row the squared distance to the third neighbour, (B,); topk takes a tenth of kthvalue's time."""
    return squares.topk(NEIGHBOURS + 1, largest=False).values[:, -1]


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (A,B) of rows (A,D), (B,D), by a matrix product; equal rows are 0 apart, not their rounding."""
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    threshold = 1e-12 * float(norms.max())
    return torch.threshold_(torch.addmm(norms, a, b.T, alpha=-2), threshold, 0)
