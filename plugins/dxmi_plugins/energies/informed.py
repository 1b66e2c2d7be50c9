"""A value network that knows its target: sensible before it has learned anything (MATH 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dxmi.api import ConfigError, Energy

from .mlp import MLPEnergy
from .scales import Scales


class InformedValue(Energy):
    """``V_t(x) = w_t*E(x) + p_t*||x||^2 + c_t + f(x, t)`` at the steps t < T of a chain that ends in ``exp(-E)``.

    The target's energy fades in and a Gaussian fades out: w_t rises from ``low`` to 0.9 geometrically, p_t is that of
    N(0, start^2 I), c_t is 0 and f returns 0 until they learn. So the untrained value already draws chains to every
    mode of the target, where one that starts from nothing finds them one by one or never.

    Args:
        energy: the target
        steps: T of the sampler
        start: std of the sampler's start
        finest: the smallest length that matters, about the noise of the sampler's last step; see ``scales``
        low: w_0
        ceiling: E is held below it, smoothly; null leaves it as it is. For energies that grow steeply far out
        width: units of a hidden layer of f
        depth: number of hidden layers of f
        residual: plugin, a network with time, as separable or pair_distances, that is f; null makes it a perceptron

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
                raise ConfigError(f"{name}: {value} is not positive")
        if energy.event_shape is None:
            raise ConfigError(f"energy: {type(energy).__name__} is no known density: it states no event_shape")
        self.event_shape, self.ceiling = energy.event_shape, ceiling
        self.energy = energy.requires_grad_(False)
        self.log_weight = nn.Parameter(torch.logspace(math.log10(low), math.log10(0.9), steps).log())
        self.log_precision = nn.Parameter(torch.full((steps,), -math.log(2 * start**2)))
        self.shift = nn.Parameter(torch.zeros(steps))
        self.scales = Scales(steps, start, finest) if residual is None else None
        perceptron = MLPEnergy(width, depth, time=True)
        self.f = residual or perceptron
        t = torch.zeros(1, dtype=torch.long)
        self._residual(torch.zeros(1, *energy.event_shape), t)  # it reads its sizes
        if residual is None:
            for p in perceptron.body[-1].parameters():
                nn.init.zeros_(p)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T-1 -> (B,)."""
        assert t is not None
        e = self.energy(x)
        if self.ceiling is not None:
            e = self.ceiling - softplus(self.ceiling - e)
        prior = self.log_precision[t].exp() * x.square().flatten(1).sum(1)
        value: Tensor = self.log_weight[t].exp() * e + prior + self.shift[t] + self._residual(x, t)
        return value

    def _residual(self, x: Tensor, t: Tensor) -> Tensor:
        return self.f(x if self.scales is None else self.scales(x, t), t)  # type: ignore[no-any-return]
