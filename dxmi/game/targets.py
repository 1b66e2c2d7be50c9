"""What a value at (x_t, t) should be."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor

from dxmi.api import CostToGo, GaussianSampler, Transition, ValueGuided
from dxmi.config.game import GameConfig
from dxmi.game.objectives import soft_q, time_cost
from dxmi.game.state import State


class Target(Protocol):
    """``J(x_{t+1}, t+1)`` plus what the step costs."""

    def __call__(self, state: State, x: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """x_t (B,*S), t (B,), x_{t+1} (B,*S) -> (B,)."""


class TimeCostTarget:
    """The time cost in place of the running cost, as in the paper's image runs (MATH 3.3)."""

    def __init__(self, weight: float, steps: int):
        self.weight, self.steps = weight, steps

    def __call__(self, state: State, x: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """``J(x_{t+1}, t+1) + weight*(sigm(c-t) - sigm(c-t-1))``: (B,)."""
        return state.J(x_next, t + 1) + self.weight * time_cost(t, self.steps)


class SoftBellmanTarget:
    """MATH (3.3) with velocity and entropy."""

    def __init__(self, game: GameConfig, sampler: GaussianSampler):
        self.game, self.sampler = game, sampler

    def __call__(self, state: State, x: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """``J(x_{t+1}, t+1) + c_t``: (B,)."""
        assert state.s2 is not None
        step: Transition = self.sampler(x, t, state.J, state.cond)
        return soft_q(state.J, x, t, step, x_next, state.s2[t], self.game.tau1, self.game.tau2)


class RedrawnTarget:
    """MATH (4.2): the successor is drawn again from a value-guided sampler, since the rollout may have explored."""

    def __init__(self, ceiling: float | None, sampler: GaussianSampler):
        self.ceiling, self.sampler, self.guided = ceiling, sampler, cast(ValueGuided, sampler)

    def __call__(self, state: State, x: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """At the round's conditions."""
        return self.at(state.J, x, t, state.cond)

    def at(self, J: CostToGo, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """``J(x', t+1) + r_t`` with x' redrawn from x_t (B,*S), t (B,): (B,)."""
        step: Transition = self.sampler(x, t, J, cond)
        return self.capped(J(step.sample(), t + 1)) + self.guided.running_cost(x, t, step)

    def capped(self, costs: Tensor) -> Tensor:
        """Costs to go as targets have them, at most ``ceiling``."""
        return costs if self.ceiling is None else costs.clamp(max=self.ceiling)
