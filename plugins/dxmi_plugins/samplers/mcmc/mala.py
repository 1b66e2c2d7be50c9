"""Metropolis-adjusted Langevin (TOOLBOX row 9; Roberts and Tweedie 1996)."""

from __future__ import annotations

import math

from torch import Generator, Tensor

from dxmi.api import CostToGo

from .adjusted import AdjustedChain
from .chain import Point, chains_last, positive, sum_square
from .langevin import clipped


class MALA(AdjustedChain):
    """A Langevin step as a proposal that is accepted or rejected: exact at any step size.

    Where the gradient grows faster than linearly, chains far out propose far too long steps and never move, though the
    mean acceptance looks healthy. ``drift_clip`` bounds the drift in the proposal and in the ratio alike, so the chain
    stays exact and comes back (MALTA, Roberts and Tweedie 1996).

    Args:
        steps: T, warm-up included
        step_size: h of ``x - h*grad E + sqrt(2*h*tau)*eps``
        start: std of the normal start x_0
        tau: temperature
        drift_clip: largest norm of a chain's gradient; null does not clip
        warmup: steps that adapt the step size
        target: wanted mean acceptance probability; .574 is best in high dimensions

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        steps: int = 1000,
        step_size: float = 0.1,
        start: float = 1.0,
        tau: float = 1.0,
        drift_clip: float | None = None,
        warmup: int = 0,
        target: float = 0.574,
    ):
        super().__init__(steps, step_size, start, tau, warmup, target)
        if drift_clip is not None:
            positive(drift_clip=drift_clip)
        self.drift_clip = drift_clip

    def propose(self, now: Point, cost_to_go: CostToGo, generator: Generator | None) -> tuple[Point, Tensor]:
        """``log q(x|y) - log q(y|x) - (E(y) - E(x))/tau`` with ``y = x - h*g(x) + s*eps``, ``s^2 = 2*h*tau``."""
        h, s = self.step_size, math.sqrt(2 * self.step_size * self.tau)
        eps = chains_last(tuple(now.x.shape), now.x, generator)
        g = clipped(now.g, self.drift_clip)
        new = self.evaluate(eps.mul(s).add_(now.x).sub_(g, alpha=h), cost_to_go)
        back = (g + clipped(new.g, self.drift_clip)).mul_(h / s).sub_(eps)  # (x - y + h*g(y))/s
        log_ratio = (now.e - new.e) / self.tau + (sum_square(eps) - sum_square(back)) / 2
        return new, log_ratio
