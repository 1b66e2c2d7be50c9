"""What value-gradient samplers share: a schedule of noise, the drift from a value, what a step costs (MATH 4)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dxmi.api import ConfigError, CostToGo, GaussianSampler, Transition, gradient_of
from dxmi.api.noise import per_row

from .mcmc.langevin import clipped

Schedule = Literal["constant", "linear", "quadratic", "exponential"]
Drift = Literal["value", "posterior"]


class GuidedChain(GaussianSampler):
    """A chain of T Gaussian steps, each a value's gradient away from ``a*x``, the reverse of a noising chain.

    That is ``x_t = x_{t+1}/a_t + s_t*eps``; from x_T it leads to ``alpha_t*x_T + sigma_t*eps``.

    Args:
        a: (T,)
        s2: s_t^2, (T,)
        tau: temperature
        drift: value takes the gradient of the next step's value where the mean would lie without drift, posterior that
            of this step's value
        draw: the drift in use in ``eval()``
        clip: largest norm of a gradient in units of ``tau*sqrt(D)/sigma_t``; None does not clip

    Raises:
        ConfigError: the clip is not positive
    """

    per_sample = True

    def __init__(self, a: Tensor, s2: Tensor, tau: float, drift: Drift, draw: Drift, clip: float | None):
        super().__init__()
        if clip is not None and not clip > 0:
            raise ConfigError("clip", f"{clip} is not positive", "null does not clip")
        self.steps, self.tau, self.drift, self.draw, self.clip = len(a), tau, drift, draw, clip
        self.a: Tensor
        self.s: Tensor
        self.register_buffer("a", a)
        self.register_buffer("s", s2.sqrt())
        alpha, sigma2 = 1 / a.flip(0).cumprod(0).flip(0), torch.zeros(self.steps)
        for t in reversed(range(self.steps)):  # x_t = x_{t+1}/a + s*eps
            sigma2[t] = s2[t] + (sigma2[t + 1] / a[t] ** 2 if t + 1 < self.steps else 0)
        self.alpha: Tensor
        self.sigma: Tensor
        self.register_buffer("alpha", alpha, persistent=False)
        self.register_buffer("sigma", sigma2.sqrt(), persistent=False)

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """x_t (B,*S), t (B,) -> N(a*x - m, (a*s)^2 I) with MATH (4.3) or (4.4)."""
        a, s = (per_row(part[t], x) for part in (self.a, self.s))
        if (self.drift if self.training else self.draw) == "value":
            _, g = gradient_of(cost_to_go, a * x, t + 1)
            m = (a * s) ** 2 / self.tau * self.clipped(g, x, t)
        else:
            _, g = gradient_of(cost_to_go, x, t)
            m = a * s**2 / self.tau * self.clipped(g, x, t)
        return Transition(a * x - m, a * s)

    def clipped(self, g: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """A value's gradient g at x_t, both (B,*S), cut to the length that ``clip`` allows."""
        if self.clip is None:
            return g
        return clipped(g, self.clip * self.tau * math.sqrt(self.dimensions(x)) / self.sigma[t])

    def dimensions(self, x: Tensor) -> int:
        """D, in how many directions a state x (B,*S) can go."""
        return x[0].numel()

    def running_cost(self, x: Tensor, t: Tensor, step: Transition) -> Tensor:
        """MATH (4.1): ``tau*(||m||^2/(2*sigma^2) - D*log a)``, (B,), in closed form."""
        m = per_row(self.a[t], x) * x - step.mean
        quadratic = (m / step.std).square().flatten(1).sum(1) / 2
        return self.tau * (quadratic - x[0].numel() * self.a[t].log())


def variances(schedule: str, first: float, last: float, steps: int) -> Tensor:
    """s_t^2 for t = 0..T-1, (T,)."""
    if schedule == "constant":
        return torch.full((steps,), first)
    if schedule == "linear":
        return torch.linspace(first, last, steps)
    if schedule == "quadratic":
        return torch.linspace(math.sqrt(first), math.sqrt(last), steps).square()
    return torch.logspace(math.log10(first), math.log10(last), steps)
