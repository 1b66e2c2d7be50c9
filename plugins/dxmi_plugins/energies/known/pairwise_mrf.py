"""A pairwise Markov random field (TOOLBOX row 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dxmi.api import ConfigError, Energy
from dxmi_plugins.energies.known.particles import incidence


class PairwiseMRF(Energy):
    """``E(x) = sum_{i<j} theta_ij |x_i - x_j|`` of n numbers.

    It does not change where all of them move by the same amount, so it is no density on all of R^n: restrict it with
    ``mean_free``, or multiply it with an expert that is one.

    Args:
        theta: the n rows of a symmetric matrix; its diagonal is not used

    Raises:
        ConfigError: ``theta`` is not a symmetric, finite matrix of two rows or more
    """

    pairs: Tensor
    weights: Tensor

    def __init__(self, theta: list[list[float]]):
        super().__init__()
        n = len(theta)
        if n < 2 or any(len(row) != n for row in theta):
            raise ConfigError(
                "theta", f"rows of {[len(row) for row in theta]} numbers are no square matrix of 2 or more"
            )
        if not all(math.isfinite(value) for row in theta for value in row):
            raise ConfigError("theta", "it holds a value that is not finite")
        for i, j in torch.triu_indices(n, n, 1).T.tolist():
            if theta[i][j] != theta[j][i]:
                raise ConfigError("theta", f"entries [{i}][{j}] and [{j}][{i}] differ", "give a symmetric matrix")
        self.event_shape = (n,)
        i, j = torch.triu_indices(n, n, 1)
        self.register_buffer("pairs", incidence(n), persistent=False)
        self.register_buffer("weights", torch.tensor(theta, dtype=torch.float64)[i, j], persistent=False)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,n) -> (B,)."""
        return self.weights.to(x) @ (self.pairs.to(x) @ x.T).abs()

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``sum_j theta_ij sign(x_i - x_j)``."""
        pairs, weights = self.pairs.to(x), self.weights.to(x)
        difference = pairs @ x.T
        return weights @ difference.abs(), (pairs.T @ (weights[:, None] * difference.sign())).T
