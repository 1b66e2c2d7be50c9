"""Metropolis-adjusted chains: accepting or rejecting, and finding the step size in a warm-up."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, CostToGo
from dxmi.api.noise import per_row

from .chain import Chain, Point, positive, uniform

LARGEST_LOG = 80.0  # of a step size: exp(80) is about what float32 holds


class DualAveraging:
    """The step size that gives a wanted acceptance (Hoffman and Gelman 2014, section 3.2)."""

    def __init__(self, step_size: float, target: float):
        self.target, self.centre = target, math.log(10 * step_size)
        self.count, self.error, self.mean = 0, 0.0, math.log(step_size)

    def next(self, acceptance: float) -> float:
        """Hear the last step's mean acceptance probability; returns the step size to try next."""
        self.count += 1
        k = self.count
        self.error += (self.target - acceptance - self.error) / (k + 10)
        tried = self.centre - math.sqrt(k) / 0.05 * self.error
        tried = min(max(tried, -LARGEST_LOG), LARGEST_LOG)  # where every proposal is accepted, or none
        self.mean += (tried - self.mean) * k**-0.75
        return math.exp(tried)

    def final(self) -> float:
        """The step size to keep: the average of those tried, later ones weighing more."""
        return math.exp(self.mean)


class AdjustedChain(Chain):
    """A chain whose proposals are accepted or rejected (Metropolis et al. 1953, Hastings 1970).

    Subclasses give ``propose``. With a ``warmup``, that many steps at the start adapt one step size for all chains;
    it is kept fixed from then on.

    Args:
        steps: T, warm-up included
        step_size: of the first step
        start: std of the normal start x_0
        tau: temperature
        warmup: steps that adapt the step size
        target: wanted mean acceptance probability

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(self, steps: int, step_size: float, start: float, tau: float, warmup: int, target: float):
        super().__init__(steps, start, tau)
        positive(step_size=step_size)
        if not 0 <= warmup < steps:
            raise ConfigError("warmup", f"{warmup} of {steps} steps leave none to draw from", "give fewer")
        if not 0 < target < 1:
            raise ConfigError("target", f"{target} is no acceptance between 0 and 1")
        self.warmup, self.target = warmup, target
        self.first_step_size = self.step_size = step_size
        self.averaging = DualAveraging(step_size, target)
        self.accepted, self.counted = torch.empty(0), 0

    @abstractmethod
    def propose(self, now: Point, cost_to_go: CostToGo, generator: Generator | None) -> tuple[Point, Tensor]:
        """A proposal and the log of its Metropolis-Hastings ratio (B,)."""

    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """X (B,*S) -> the next state (B,*S); a chain whose proposal is rejected stays where it is."""
        if k == 0:
            self.begin(x)
        now = self.at(x, cost_to_go)
        new, log_ratio = self.propose(now, cost_to_go, generator)
        accept = uniform(len(x), x, generator).log_() < log_ratio  # a ratio that is not a number accepts nothing
        now = Point(*(torch.where(per_row(accept, a), a, b) for a, b in zip(new, now, strict=True)))
        self.remember(now, cost_to_go)
        if k < self.warmup:
            self.adapt(log_ratio, k)
        elif len(self.accepted) == len(x):
            self.accepted += accept
            self.counted += 1
        return now.x

    def begin(self, x: Tensor) -> None:
        """Forget the last chains."""
        self.accepted, self.counted, self.memory = torch.zeros(len(x), device=x.device), 0, None
        self.step_size = self.first_step_size
        self.averaging = DualAveraging(self.step_size, self.target)

    def adapt(self, log_ratio: Tensor, k: int) -> None:
        """One step of dual averaging; the last one settles the step size."""
        tried = self.averaging.next(log_ratio.nan_to_num(-math.inf).clamp(max=0).exp().mean().item())
        self.step_size = tried if k + 1 < self.warmup else self.averaging.final()

    def report(self) -> dict[str, Any]:
        """The step size in use and the acceptance of each chain (B,) since the warm-up."""
        found: dict[str, Any] = {"step_size": self.step_size}
        return found | {"acceptance": self.accepted / self.counted} if self.counted else found
