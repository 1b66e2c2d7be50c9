"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011, arXiv:1206.1901)."""

from __future__ import annotations

import math

from torch import Generator, Tensor

from dxmi.api import CostToGo

from .adjusted import AdjustedChain
from .chain import Point, chains_last, positive, sum_square


class HMC(AdjustedChain):
    """A proposal far away: ``leapfrog`` steps along the flow of ``H(x, p) = E(x) + ||p||^2/2`` with mass 1.

    The momentum p is drawn afresh from N(0, tau I) at each step, so that (x, p) has the law of ``exp(-H/tau)``, and the
    end of the flow is accepted with probability ``min(1, exp(-(H' - H)/tau))``. The flow is stable while ``step_size``
    stays below 2/sqrt(curvature of E), whatever ``tau`` is. A flow of ``leapfrog*step_size`` that comes back to its
    start, such as 2*pi on the energy ||x||^2/2, does not mix: change one of the two.

    Args:
        steps: T, warm-up included
        step_size: h of a leapfrog step
        leapfrog: number of leapfrog steps to a proposal, each of one energy and gradient
        start: std of the normal start x_0
        tau: temperature
        warmup: steps that adapt the step size
        target: wanted mean acceptance probability

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        steps: int = 1000,
        step_size: float = 0.1,
        leapfrog: int = 10,
        start: float = 1.0,
        tau: float = 1.0,
        warmup: int = 0,
        target: float = 0.8,
    ):
        super().__init__(steps, step_size, start, tau, warmup, target)
        positive(leapfrog=leapfrog)
        self.leapfrog = leapfrog

    def propose(self, now: Point, cost_to_go: CostToGo, generator: Generator | None) -> tuple[Point, Tensor]:
        """The end of the flow and ``-(H' - H)/tau``; the flow is reversible and keeps volumes, so no more is needed."""
        p = chains_last(tuple(now.x.shape), now.x, generator).mul_(math.sqrt(self.tau))
        new, end = self.flow(now, p, cost_to_go)
        return new, (now.e - new.e + (sum_square(p) - sum_square(end)) / 2) / self.tau

    def flow(self, now: Point, p: Tensor, cost_to_go: CostToGo) -> tuple[Point, Tensor]:
        """Leapfrog: half a step of p, then whole steps of x and p in turn, the last one of p half. Both (B,*S)."""
        h = self.step_size
        p = p.sub(now.g, alpha=h / 2)
        for k in range(self.leapfrog):
            now = self.evaluate(p.mul(h).add_(now.x), cost_to_go)
            p.sub_(now.g, alpha=h if k + 1 < self.leapfrog else h / 2)
        return now, p
