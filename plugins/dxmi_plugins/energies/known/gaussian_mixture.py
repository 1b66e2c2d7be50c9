"""Gaussian mixtures: everything about them is known (MATH 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from dxmi.api import ConfigError, Energy, randn
from dxmi_plugins.energies.known.mixture_math import LOG2_E, Expanded, Shares, Whitened, categorical, shares

SPREAD = 1e4  # largest squared distance in stds at which the expanded square keeps three decimals in float32


class GaussianMixture(Energy):
    """Minus the log density of a mixture of Gaussians, events (D,).

    ``modes`` (K,D) are the means where the module lives; ``log_weights`` (K,), ``means`` (K,D) and ``covariances``
    (K,D,D) define it in float64, and energies have the precision of the points, whatever the module's.

    Args:
        preset: gmm9, gmm25, gmm40 or eight_gaussians; null takes ``means``
        weights: one positive number for each component, in any scale; null means equal
        means: K lists of D numbers
        covariances: one variance for all, K variances, K lists of D variances or K matrices; null is the preset's, or 1

    Raises:
        ConfigError: preset and means are both given or both missing, or weights or covariances do not fit them
    """

    log_z = 0.0

    def __init__(
        self,
        preset: str | None = None,
        weights: list[float] | None = None,
        means: list[list[float]] | None = None,
        covariances: float | list[float] | list[list[float]] | list[list[list[float]]] | None = None,
    ):
        super().__init__()
        if (preset is None) == (means is None):
            raise ConfigError("preset", "give either a preset or means")
        m, variance = (_numbers("means", means), 1.0) if preset is None else _preset(preset)
        if m.ndim != 2 or not m.numel():
            raise ConfigError("means", "give K lists of D numbers")
        count, self.event_shape = len(m), (m.shape[1],)
        w = torch.ones(count, dtype=m.dtype) if weights is None else _numbers("weights", weights)
        if w.shape != (count,) or not (w > 0).all():
            raise ConfigError("weights", f"{weights} are not {count} positive numbers, one for each component")
        self.modes: Tensor
        self.register_buffer("modes", m.to(torch.get_default_dtype()), persistent=False)
        self.means, self.log_weights = m, (w / w.sum()).log()
        self.covariances = _matrices(variance if covariances is None else covariances, *m.shape)
        self.factors = torch.linalg.cholesky(self.covariances)
        identity = torch.eye(m.shape[1], dtype=m.dtype)
        self.whiten = torch.linalg.solve_triangular(self.factors, identity, upper=False)
        self.form = self._form()
        self.cast: dict[Any, Expanded | Whitened] = {}

    def _form(self) -> Expanded | Whitened:
        variances = self.covariances.diagonal(dim1=1, dim2=2)
        spread = ((self.means - self.means.mean(0)) ** 2 / variances).max()
        if spread < SPREAD and self.covariances.equal(torch.diag_embed(variances)):
            return Expanded.of(self.log_weights, self.means, variances)
        return Whitened.of(self.log_weights, self.means, self.whiten)

    def _at(self, x: Tensor) -> Expanded | Whitened:
        """The form with the dtype and device of x."""
        key = x.dtype, x.device
        if key not in self.cast:
            with torch.inference_mode(False):  # what is kept has to serve gradients later
                self.cast[key] = type(self.form)(*(part.to(x) for part in self.form))
        return self.cast[key]

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,D) -> (B,)."""
        return self._evaluate(x)[0]

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy (B,) and gradient (B,D) in closed form."""
        e, found, kept = self._evaluate(x)
        return e, self._at(x).gradient(kept, found).T

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Shares, Tensor]:
        form = self._at(x)
        y = x.T.contiguous() - form.centre
        logits, kept = form.logits(y)
        found = shares(logits)
        return form.energy(y, found), found, kept

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N independent exact draws (n,D)."""
        k = categorical(self.log_weights.exp().to(self.modes)[:, None], n, generator)
        x = randn((len(self.modes[0]), n), self.modes, generator)
        for i, factor in enumerate(self.factors.to(x)):
            rows = k == i
            x[:, rows] = torch.addmm(self.modes[i, :, None], factor, x[:, rows])
        return x.T

    def convolved(self, variance: float) -> GaussianMixture:
        """The mixture of ``x + sqrt(variance)*eps``: ``variance`` is added to every covariance's diagonal."""
        covariances = self.covariances + variance * torch.eye(self.means.shape[1], dtype=self.means.dtype)
        w, m, c = (constant.tolist() for constant in (self.log_weights.exp(), self.means, covariances))
        return GaussianMixture(weights=w, means=m, covariances=c).to(self.modes)

    @torch.no_grad()
    def conditional(self, x: Tensor, i: int, generator: Generator | None = None) -> Tensor:
        """Draw coordinate i given the others: x (B,D) -> (B,).

        A component is drawn by its responsibility for the others, then the coordinate by that component's conditional.
        In ``z = W(x - m)`` coordinate i moves z along column i of W; its conditional mean is where ``|z|^2`` is least.
        """
        log_w, m, whiten = (constant.to(x) for constant in (self.log_weights, self.means, self.whiten))
        away = x.T - m[:, :, None]
        away[:, i] = 0
        z, column = whiten @ away, whiten[:, :, i, None]
        precision = column.square().sum(1)
        best = -(column * z).sum(1) / precision  # (K,B), from m_i
        logits = -(z + column * best[:, None]).square().sum(1) / 2
        logits += (log_w + whiten.diagonal(dim1=1, dim2=2).log().sum(1))[:, None] - precision.log() / 2
        k = categorical(shares(logits * LOG2_E).raw, len(x), generator)
        mean = (m[:, i, None] + best).gather(0, k[None])[0]
        return mean + randn(mean.shape, mean, generator) / precision[k, 0].sqrt()


def _numbers(name: str, given: object) -> Tensor:
    """Lists of numbers as float64. Raises ConfigError where they are ragged or not finite."""
    try:
        numbers = torch.tensor(given, dtype=torch.float64)
    except (ValueError, TypeError) as error:
        raise ConfigError(name, "the lists differ in length") from error
    if not numbers.isfinite().all():
        raise ConfigError(name, "not every number is finite")
    return numbers


def _matrices(given: object, count: int, dim: int) -> Tensor:
    """Covariances in any of their forms -> (K,D,D)."""
    c = _numbers("covariances", given)
    if tuple(c.shape) not in ((), (count,), (count, dim), (count, dim, dim)):
        forms = f"one variance, {count} variances, {count} lists of {dim} variances, or {count} {dim}x{dim} matrices"
        raise ConfigError("covariances", f"their shape is {tuple(c.shape)}", f"give {forms}")
    if c.ndim < 3:
        c = torch.diag_embed(c.reshape(*c.shape, *[1] * (2 - c.ndim)).expand(count, dim))
    for k, matrix in enumerate(c):
        if not matrix.equal(matrix.T) or torch.linalg.cholesky_ex(matrix).info:
            raise ConfigError("covariances", f"number {k} is not symmetric and positive definite")
    return c


def _preset(name: str) -> tuple[Tensor, float]:
    """Means (K,D) and the variance of every component (MATH 5)."""
    if name in ("gmm9", "gmm25"):
        line = torch.arange(-5.0, 6, 5) if name == "gmm9" else torch.arange(-10.0, 11, 5)
        return torch.cartesian_prod(line, line).double(), 0.3
    if name == "gmm40":  # drawn in float32, as published
        u = torch.rand((40, 2), generator=Generator().manual_seed(0), dtype=torch.float32)
        return ((u - 0.5) * 2 * 40).double(), softplus(torch.ones((), dtype=torch.float64)).item() ** 2
    if name == "eight_gaussians":
        angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return 2 * torch.stack([angle.cos(), angle.sin()], 1), 0.1**2
    raise ConfigError("preset", f"no '{name}'", "give gmm9, gmm25, gmm40 or eight_gaussians")
