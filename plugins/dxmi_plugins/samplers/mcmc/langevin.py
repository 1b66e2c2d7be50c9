"""Unadjusted Langevin: gradient steps plus noise (TOOLBOX rows 8, 10; Welling and Teh 2011)."""

from __future__ import annotations

import math
from typing import Any

from torch import Generator, Tensor

from dxmi.api import ConfigError, CostToGo
from dxmi.api.noise import per_row

from .chain import Chain, chains_last, positive, sum_square


class Langevin(Chain):
    """``x' = x - step_size*grad E(x) + sqrt(2*step_size*tau)*eps``.

    Its stationary law is that of ``exp(-E/tau)`` up to an error that falls with the step size: on N(0, 1) the variance
    is ``1/(1 - step_size/2)``. Image energies are often trained with a std of the noise set apart; that implies a
    temperature of ``noise^2/(2*step_size)``, which ``report`` tells.

    Args:
        steps: T
        step_size: h
        noise: std of each step's noise; null takes the exact ``sqrt(2*step_size*tau)``, 0 descends to a mode
        start: std of the normal start x_0
        tau: temperature, where ``noise`` is null
        clip: largest norm of a chain's gradient; null does not clip

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        steps: int = 1000,
        step_size: float = 0.01,
        noise: float | None = None,
        start: float = 1.0,
        tau: float = 1.0,
        clip: float | None = None,
    ):
        super().__init__(steps, start, tau)
        positive(step_size=step_size, **({} if clip is None else {"clip": clip}))
        if noise is not None and not 0 <= noise < math.inf:
            raise ConfigError("noise", f"{noise} is negative or not finite", "give a std, or null for the exact one")
        self.step_size, self.clip = step_size, clip
        self.noise = math.sqrt(2 * step_size * tau) if noise is None else noise
        self.stationary = self.noise > 0

    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """X (B,*S) -> the next state (B,*S)."""
        g = clipped(self.evaluate(x, cost_to_go).g, self.clip)
        if not self.noise:
            return x.sub(g, alpha=self.step_size)
        eps = chains_last(tuple(x.shape), x, generator)
        return eps.mul_(self.noise).add_(x).sub_(g, alpha=self.step_size)

    def report(self) -> dict[str, Any]:
        """The temperature that step and noise imply."""
        return {"step_size": self.step_size, "implied_temperature": self.noise**2 / (2 * self.step_size)}


def clipped(g: Tensor, limit: float | Tensor | None) -> Tensor:
    """Gradients (B,*S) scaled down to norms of at most ``limit``, a number or (B,)."""
    if limit is None:
        return g
    return g * per_row(limit / sum_square(g).sqrt().clamp(min=limit), g)
