"""Distances between two sets of samples of equal size: Wasserstein, mode shares, sides."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

DIRECTIONS = 500  # of sliced_w2, always the same ones


def w2(cost: Tensor) -> float:
    """The 2-Wasserstein distance of n points from n others, from their squared distances (n,n)."""
    pairs = linear_sum_assignment(cost.numpy())
    return cost[pairs].mean().sqrt().item()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Of each x (N,D) from each y (M,D): (N,M), without the rounding of products."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


def sorted_w2(x: Tensor, y: Tensor) -> float:
    """The same of numbers x, y (n,), or the root mean square of it over the columns of x, y (n,K)."""
    return (x.sort(0)[0] - y.sort(0)[0]).square().mean().sqrt().item()


def sliced_w2(x: Tensor, y: Tensor) -> float:
    """Root mean square, over random directions, of the 2-Wasserstein distance of the projections of x, y (n,D).

    Of sets that differ by a shift d it is near ``|d|/sqrt(D)``.
    """
    directions = torch.randn(x.shape[1], DIRECTIONS, generator=Generator().manual_seed(0), dtype=x.dtype)
    directions /= directions.norm(dim=0)
    return sorted_w2(x @ directions, y @ directions)


def mode_shares(x: Tensor, modes: Tensor) -> Tensor:
    """The share of x (n,D) that is nearest to each of K modes (K,D): (K,)."""
    return torch.cdist(x, modes).argmin(1).bincount(minlength=len(modes)).double() / len(x)


def mode_error(x: Tensor, y: Tensor, modes: Tensor) -> float:
    """Total variation between the mode shares of x and y (n,D): 0 to 1."""
    return (mode_shares(x, modes) - mode_shares(y, modes)).abs().sum().item() / 2


def modes_found(x: Tensor, y: Tensor, modes: Tensor) -> int:
    """Number of modes with samples x (n,D), and with at least half the share that the reference y (n,D) has there."""
    own, due = mode_shares(x, modes), mode_shares(y, modes)
    return int(((own > 0) & (own >= due / 2)).sum())


def side_error(x: Tensor, y: Tensor) -> float:
    """Largest difference over coordinates between the shares of x and of y (n,D) that are positive: 0 to 1."""
    return ((x > 0).double().mean(0) - (y > 0).double().mean(0)).abs().max().item()
