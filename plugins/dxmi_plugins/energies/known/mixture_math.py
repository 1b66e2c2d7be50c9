"""What mixtures share: responsibilities, the draw of a component, and Gaussians as matrix products, chains last."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Expanded(NamedTuple):
    """Components with diagonal covariances, the square expanded: ``(y-m)^2*p = y^2*p - 2*y*m*p + m^2*p``.

    The fastest form. Rounding costs it about ``eps*(m^2*p)``, so that the means may not be too many stds apart.
    """

    centre: Tensor
    """(D,1)"""
    precision: Tensor
    """(D,1), the smallest: this much curvature all components share, and no logit holds it"""
    matrix: Tensor
    """(K,D), or (K,2D) where precisions differ; the logits' dependence on y, or on y and y^2"""
    bias: Tensor
    """(K,1)"""

    @classmethod
    def of(cls, log_weights: Tensor, means: Tensor, variances: Tensor) -> Expanded:
        """From log weights (K,), means (K,D) and variances (K,D)."""
        centre, p = means.mean(0), 1 / variances
        m, shared = means - centre, p.amin(0)
        parts = [m * p, (shared - p) / 2] if (p != shared).any() else [m * p]
        bias = log_weights + ((p / (2 * math.pi)).log() - m**2 * p).sum(1) / 2
        return cls(centre[:, None], shared[:, None], torch.cat(parts, 1) * LOG2_E, bias[:, None] * LOG2_E)

    def logits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Y (D,N) -> logits (K,N) and what the gradient needs of them."""
        features = y if self.matrix.shape[1] == len(y) else torch.cat([y, y * y])
        return torch.addmm(self.bias, self.matrix, features), y

    def energy(self, y: Tensor, found: Shares) -> Tensor:
        """(N,)."""
        return (y * y * self.precision).sum(0) / 2 - found.log

    def gradient(self, y: Tensor, found: Shares) -> Tensor:
        """(D,N)."""
        slopes = (self.matrix.T @ found.raw).div_(found.total * LOG2_E)
        linear, quadratic = slopes[: len(y)], slopes[len(y) :]
        gradient = (self.precision * y).sub_(linear)
        return gradient.addcmul_(quadratic, y, value=-2) if len(quadratic) else gradient


class Whitened(NamedTuple):
    """Components with any covariances: ``(y-m)' C^-1 (y-m) = |z|^2`` with ``z = W(y-m)``, ``C^-1 = W'W``."""

    centre: Tensor
    """(D,1)"""
    matrix: Tensor
    """(K*D,D), every W"""
    offset: Tensor
    """(K*D,1), every -W m"""
    bias: Tensor
    """(K,1)"""

    @classmethod
    def of(cls, log_weights: Tensor, means: Tensor, whiten: Tensor) -> Whitened:
        """From log weights (K,), means (K,D) and the W (K,D,D), lower triangular."""
        centre = means.mean(0)
        offset = -(whiten @ (means - centre)[:, :, None])
        bias = log_weights + (whiten.diagonal(dim1=1, dim2=2) / math.sqrt(2 * math.pi)).log().sum(1)
        return cls(centre[:, None], whiten.flatten(0, 1), offset.flatten(0, 1), bias[:, None] * LOG2_E)

    def logits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Y (D,N) -> logits (K,N) and what the gradient needs of them."""
        z = torch.addmm(self.offset, self.matrix, y).reshape(-1, *y.shape)
        return self.bias - z.square().sum(1) * (LOG2_E / 2), z

    def energy(self, y: Tensor, found: Shares) -> Tensor:
        """(N,)."""
        return -found.log

    def gradient(self, z: Tensor, found: Shares) -> Tensor:
        """(D,N), from the z (K,D,N)."""
        return (self.matrix.T @ (z * found.raw[:, None]).flatten(0, 1)).div_(found.total)


LOG2_E = math.log2(math.e)


class Shares(NamedTuple):
    """What K logits (K,N) amount to."""

    raw: Tensor
    """(K,N): ``2**logit`` up to a factor of each column"""
    total: Tensor
    """(N,): the sums of its columns; ``raw/total`` are the responsibilities"""
    log: Tensor
    """(N,): ``log sum_k 2**logit``, natural"""


def shares(logits: Tensor) -> Shares:
    """Overwrites the logits (K,N)."""
    top = logits.detach().amax(0).clamp(min=torch.finfo(logits.dtype).min)  # -inf - -inf is no number
    raw = logits.sub_(top).exp2_()
    total = raw.sum(0)
    return Shares(raw, total, (top + total.log2()) / LOG2_E)


def categorical(p: Tensor, n: int, generator: Generator | None = None) -> Tensor:
    """One index a column of weights p in any scale: (K,n), or (K,1) for all columns, -> (n,) integer.

    The uniform numbers are drawn where the generator lives.
    """
    device = p.device if generator is None else generator.device
    u = torch.rand(n, generator=generator, device=device, dtype=p.dtype).to(p.device)
    upto = p.cumsum(0)
    return (upto < u * upto[-1]).sum(0)
