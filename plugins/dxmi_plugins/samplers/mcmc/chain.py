"""What the chain samplers share: a start, noise, the energy at the end, and the memory of a point."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, CostToGo, Sampler, gradient_of


class Point(NamedTuple):
    """A state and what its chain knows there."""

    x: Tensor
    """(B,*S)"""
    e: Tensor
    """(B,) energy"""
    g: Tensor
    """(B,*S) gradient; (B,0) where the chain needs none"""


def chains_last(shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard normal noise (B,*S) whose memory runs over the chains first.

    Sums over a small event then run along whole vectors of chains, several times faster than rows of two numbers.
    Drawn where the generator lives, with the dtype and device of ``like``.
    """
    device = like.device if generator is None else generator.device
    noise = torch.randn((*shape[1:], shape[0]), generator=generator, device=device, dtype=like.dtype)
    return noise.movedim(-1, 0).to(like.device)


def uniform(n: int, like: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform numbers in [0, 1), (n,), drawn as ``chains_last`` does."""
    device = like.device if generator is None else generator.device
    return torch.rand(n, generator=generator, device=device, dtype=like.dtype).to(like.device)


def sum_square(x: Tensor) -> Tensor:
    """``||x||^2`` of each chain: (B,*S) -> (B,)."""
    return x.square().flatten(1).sum(1)


class Chain(Sampler):
    """A chain of ``steps`` equal steps on ``exp(-J(x, T)/tau)``; subclasses give ``move``.

    Args:
        steps: T
        start: std of the normal start x_0
        tau: temperature

    Raises:
        ConfigError: an option is out of its range
    """

    stationary = True

    def __init__(self, steps: int = 1000, start: float = 1.0, tau: float = 1.0):
        super().__init__()
        positive(steps=steps, tau=tau)
        if not 0 <= start < math.inf:
            raise ConfigError("start", f"{start} is negative or not finite", "give a std")
        self.steps, self.start, self.tau = steps, start, tau
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # where .to() has put this sampler
        self.memory: tuple[Point, int, CostToGo] | None = None

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """``start`` times standard normal noise, (B,*S)."""
        return self.start * chains_last(shape, self.place, generator)

    @abstractmethod
    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """Step k of 0..T-1: states (B,*S) -> the next ones (B,*S)."""

    def step(
        self,
        x: Tensor,
        t: Tensor,
        cost_to_go: CostToGo,
        generator: Generator | None = None,
        cond: Tensor | None = None,
    ) -> Tensor:
        """X (B,*S), t (B,) all of one step -> the next state (B,*S)."""
        return self.move(x, int(t[0]), cost_to_go, generator)

    def at(self, x: Tensor, cost_to_go: CostToGo) -> Point:
        """What ``evaluate`` finds at x, remembered where the last step of the same chains ended there."""
        if self.memory is not None:
            point, version, cost = self.memory
            if point.x is x and x._version == version and cost is cost_to_go:
                return point
        return self.evaluate(x, cost_to_go)

    def remember(self, point: Point, cost_to_go: CostToGo) -> None:
        """Spare the next step the evaluation of this point, unless it is written to or asked for another cost."""
        self.memory = point, point.x._version, cost_to_go

    def evaluate(self, x: Tensor, cost_to_go: CostToGo) -> Point:
        """Energy and gradient at x."""
        return Point(x, *gradient_of(cost_to_go, x, self.end(x)))

    def end(self, x: Tensor) -> Tensor:
        """T for each chain, (B,): the time at which the cost to go is the energy."""
        return torch.full((len(x),), self.steps, device=x.device)


def positive(**options: float) -> None:
    """Raise ConfigError naming the first option that is not a positive, finite number."""
    for name, value in options.items():
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(name, f"{value} is not positive")
