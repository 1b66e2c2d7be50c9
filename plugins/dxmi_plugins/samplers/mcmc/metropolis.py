"""Random-walk Metropolis (TOOLBOX row 5; Metropolis et al. 1953)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dxmi.api import CostToGo

from .adjusted import AdjustedChain
from .chain import Point, chains_last


class Metropolis(AdjustedChain):
    """Proposals ``x + step_size*eps``, accepted with probability ``min(1, exp(-(E(y) - E(x))/tau))``: no gradients.

    Args:
        steps: T, warm-up included
        step_size: std of the proposal
        start: std of the normal start x_0
        tau: temperature
        warmup: steps that adapt the step size
        target: wanted mean acceptance probability; .234 is best in high dimensions, .44 in one (Roberts et al. 1997)

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        steps: int = 1000,
        step_size: float = 0.5,
        start: float = 1.0,
        tau: float = 1.0,
        warmup: int = 0,
        target: float = 0.234,
    ):
        super().__init__(steps, step_size, start, tau, warmup, target)

    @torch.no_grad()
    def evaluate(self, x: Tensor, cost_to_go: CostToGo) -> Point:
        """The energy at x."""
        return Point(x, cost_to_go(x, self.end(x)), x.new_empty(len(x), 0))

    def propose(self, now: Point, cost_to_go: CostToGo, generator: Generator | None) -> tuple[Point, Tensor]:
        """``-(E(y) - E(x))/tau``: the proposal is symmetric."""
        eps = chains_last(tuple(now.x.shape), now.x, generator)
        new = self.evaluate(eps.mul_(self.step_size).add_(now.x), cost_to_go)
        return new, (now.e - new.e) / self.tau
