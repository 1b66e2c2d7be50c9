"""Energies made of energies: another temperature, and mixtures. Products are ``dxmi.api.Product``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from dxmi.api import ConfigError, Convolved, Energy, ExactDraws
from dxmi_plugins.energies.known.mixture_math import LOG2_E, Shares, categorical, shares


class Tempered(Energy):
    """``E(x)/tau``: the density to the power 1/tau.

    Args:
        energy: plugin
        tau: temperature; above 1 is flatter

    Raises:
        ConfigError: ``tau`` is not positive
    """

    def __init__(self, energy: Energy, tau: float = 1.0):
        super().__init__()
        if not (tau > 0 and math.isfinite(tau)):
            raise ConfigError("tau", f"{tau} is not positive")
        self.energy, self.tau, self.event_shape = energy, tau, energy.event_shape
        self.reads_noise = energy.reads_noise
        self.log_z = energy.log_z if tau == 1 else None
        if tau == 1 and isinstance(energy, ExactDraws):
            self.sample = energy.sample

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S) -> (B,)."""
        return self.energy(x, t, cond) / self.tau  # type: ignore[no-any-return]

    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The energy's own, over tau."""
        e, gradient = self.energy.with_gradient(x, t, cond)
        return e / self.tau, gradient / self.tau


class Mixture(Energy):
    """Minus the log density of a mixture, ``-log sum_i weight_i * exp(-E_i)/Z_i``.

    Args:
        energies: plugins, known densities of one event shape whose log Z are known
        weights: one positive number for each, in any scale; null means equal

    Raises:
        ConfigError: a log Z is not known, the event shapes differ, or the weights do not fit
    """

    log_z = 0.0

    def __init__(self, energies: list[Energy], weights: list[float] | None = None):
        super().__init__()
        if not energies:
            raise ConfigError("energies", "give at least one")
        log_zs = [_log_z(e, i) for i, e in enumerate(energies)]
        shapes = {e.event_shape for e in energies}
        if len(shapes) > 1:
            raise ConfigError("energies", f"their event shapes differ: {', '.join(map(str, shapes))}")
        given = [1.0] * len(energies) if weights is None else weights
        if len(given) != len(energies) or not all(w > 0 and math.isfinite(w) for w in given):
            raise ConfigError("weights", f"{weights} are not {len(energies)} positive numbers, one for each energy")
        self.energies, self.event_shape = nn.ModuleList(energies), shapes.pop()
        self.weights = [w / sum(given) for w in given]
        self.constants = [z - math.log(w) for z, w in zip(log_zs, self.weights, strict=True)]
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # where .to() has put this density
        if all(isinstance(e, ExactDraws) for e in energies):
            self.sample = self._sample
        if all(isinstance(e, Convolved) for e in energies):
            self.convolved = self._convolved

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S) -> (B,)."""
        return -self._shares([e(x, t, cond) for e in self.energies]).log

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The energies' own gradients, weighted by responsibility."""
        parts = [e.with_gradient(x, t, cond) for e in self.energies]  # type: ignore[operator]
        energies, gradients = zip(*parts, strict=True)
        found = self._shares(energies)
        weights = (found.raw / found.total).reshape(len(parts), -1, *[1] * (x.ndim - 1))
        return -found.log, sum(w * g for w, g in zip(weights, gradients, strict=True))

    def _sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N independent exact draws (n,*S)."""
        k = categorical(self.place.new_tensor(self.weights)[:, None], n, generator)
        x = self.place.new_empty(n, *(self.event_shape or ()))
        for i, e in enumerate(self.energies):
            rows = k == i
            x[rows] = e.sample(int(rows.sum()), generator).to(x)  # type: ignore[operator]
        return x

    def _convolved(self, variance: float) -> Mixture:
        """The mixture of the convolved energies."""
        return Mixture([e.convolved(variance) for e in self.energies], self.weights)  # type: ignore[operator]

    def _shares(self, energies: Sequence[Tensor]) -> Shares:
        return shares(torch.stack([(-e - c) * LOG2_E for e, c in zip(energies, self.constants, strict=True)]))


def _log_z(energy: Energy, i: int) -> float:
    if energy.log_z is None:
        raise ConfigError("energies", f"number {i}, a {type(energy).__name__}, has no known log Z", "take it out")
    return energy.log_z
