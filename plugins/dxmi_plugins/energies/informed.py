"""A value network that knows its target: sensible before it has learned anything (MATH 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dxmi.api import ConfigError, Energy
from dxmi_plugins.energies.layers import Scales

from .mlp import MLPEnergy


class InformedValue(Energy):
    """``V_t(x) = w_t*E(x) + p_t*||x||^2 + c_t + f(x, t, w_t*E(x))`` at the steps t < T of a chain to ``exp(-E)``.

    The target's energy fades in and the start's Gaussian fades out. Untrained, ``w_t = low^(1 - t/T)`` but ``w_0 = 0``,
    ``p_t = (1 - w_t)/(2*start^2)``, c_t and f are 0: both ends are exact, the start's N(0, start^2 I) at t = 0 and, as
    w_T = 1, the energy at T, which chains ask the energy itself for. w, p, c and f learn, at t = 0 as well (but for
    w_0), since a finite chain leaves something of the target in x_0. So the untrained value already draws chains to
    every mode of the target, where one that starts from nothing finds them one by one or never. That f sees the faded
    energy too spares it learning the target's shape again.

    Args:
        energy: the target
        steps: T of the sampler
        start: std of the sampler's start
        finest: the smallest length that matters, about the noise of the sampler's last step; see ``scales``
        low: the base of w_t, in (0, 1)
        ceiling: E is held below it, smoothly; null leaves it as it is. For energies that grow steeply far out
        width: units of a hidden layer of f
        depth: number of hidden layers of f
        residual: plugin, a network of x and t alone, as separable or pair_distances, that is f; null makes it a
            perceptron

    Raises:
        ConfigError: an option is not positive, or the energy is no known density
    """

    def __init__(
        self,
        energy: Energy,
        steps: int,
        start: float = 1.0,
        finest: float = 0.1,
        low: float = 1e-3,
        ceiling: float | None = None,
        width: int = 128,
        depth: int = 3,
        residual: Energy | None = None,
    ):
        super().__init__()
        for name, value in {"steps": steps, "start": start, "low": low, "width": width, "depth": depth}.items():
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(name, f"{value} is not positive")
        if low >= 1:
            raise ConfigError("low", f"{low} is not below 1")
        if residual is not None and (finest, width, depth) != (0.1, 128, 3):
            raise ConfigError("residual", "it is f, so finest, width and depth are its own", "leave them out here")
        if energy.event_shape is None:
            raise ConfigError("energy", f"{type(energy).__name__} is no known density: it states no event_shape")
        self.event_shape, self.steps, self.ceiling = energy.event_shape, steps, ceiling
        self.energy = energy.requires_grad_(False)
        w = low ** (1 - torch.arange(steps) / steps)
        self.log_weight = nn.Parameter(w.log())
        self.log_precision = nn.Parameter((1 - w * (torch.arange(steps) > 0)).log() - math.log(2 * start**2))
        self.shift = nn.Parameter(torch.zeros(steps))
        self.scales = Scales(steps, start, finest) if residual is None else None
        self.f = perceptron(width, depth, energy.event_shape) if residual is None else residual
        try:
            self._residual(torch.zeros(1, *energy.event_shape), torch.zeros(1, dtype=torch.long), torch.zeros(1))
        except (RuntimeError, ValueError) as error:
            kind, shape = type(self.f).__name__, energy.event_shape
            raise ConfigError("residual", f"{kind} does not take events {shape} of the target: {error}") from error

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T-1 -> (B,)."""
        assert t is not None
        e, w = self.energy(x), self.log_weight[t].exp()
        low = e if self.ceiling is None else self.ceiling - softplus(self.ceiling - e)
        prior = self.log_precision[t].exp() * x.square().flatten(1).sum(1)
        value: Tensor = w * (t > 0) * low + prior + self.shift[t] + self._residual(x, t, w.detach() * e)
        return value

    def _residual(self, x: Tensor, t: Tensor, faded: Tensor) -> Tensor:
        if self.scales is None:
            return self.f(x, t)  # type: ignore[no-any-return]
        seen = torch.cat([self.scales(x, t).flatten(1), faded.asinh()[:, None]], 1)
        return self.f(seen, t)  # type: ignore[no-any-return]


def perceptron(width: int, depth: int, shape: tuple[int, ...]) -> MLPEnergy:
    """An ``MLPEnergy`` with time on both scales of events of this shape and an energy, 0 until it learns."""
    f = MLPEnergy(width, depth, time=True)
    f(torch.zeros(1, 2 * math.prod(shape) + 1), torch.zeros(1, dtype=torch.long))  # it reads its sizes
    for p in f.body[-1].parameters():
        nn.init.zeros_(p)
    return f
