"""The value's part of a round."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dxmi.game.objectives import lambda_returns, mean_square_steps
from dxmi.game.players import Players
from dxmi.game.rollouts import Rollouts
from dxmi.game.state import State, means
from dxmi.game.targets import RedrawnTarget, Target


class VelocityUpdate:
    """MATH (3.5): ``s_t^2 <- avr*s_t^2 + (1-avr)*mean||x_{t+1}-x_t||^2/D``; the first rollout sets it."""

    def __init__(self, avr: float, players: Players):
        self.avr, self.players = avr, players

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Nothing to log."""
        moved = self.players.accelerator.reduce(mean_square_steps(state.xs), "mean")
        state.s2 = moved if state.s2 is None else state.s2.lerp(moved, 1 - self.avr)
        return {}


class TemporalDifference:
    """MATH (3.3), (4.2): the value, or the energy that serves as one, regresses on ``target``.

    Args:
        times: how often it learns from a round's rollout, with new targets and transitions each time
        first: the first step that is learned at: 1 unless the start is learned, else nobody descends V_0
    """

    def __init__(self, players: Players, rollouts: Rollouts, target: Target, times: int, first: int):
        self.players, self.rollouts, self.target = players, rollouts, target
        self.times, self.first = times, first

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``value_loss``."""
        player, logs = self.players.valued, []
        for _ in range(self.times):
            for x, t, target in self.pairs(state):
                loss = (self.players.networks[player](x, t, state.cond) - target).square().mean()
                self.players.descend(player, loss)
                logs.append({"value_loss": loss.detach()})
        return means(logs)

    def pairs(self, state: State) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of x_t (B,*S), t (B,) and what the value should be there, (B,)."""
        for x, t, x_next in self.rollouts.transitions(state, self.first):
            with torch.no_grad():
                target = self.target(state, x, t, x_next)
            yield x, t, target


class LambdaReturns(TemporalDifference):
    """TD(lambda) along a value-guided sampler's rollouts, lambda = trace."""

    def __init__(self, players: Players, rollouts: Rollouts, target: RedrawnTarget, times: int, trace: float):
        super().__init__(players, rollouts, target, times, first=0)
        self.one_step, self.trace = target, trace

    def pairs(self, state: State) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As ``TemporalDifference``, with whole returns."""
        returns = self.returns(state)
        for x, t, _ in self.rollouts.transitions(state, self.first):
            yield x, t, returns[t, torch.arange(len(t), device=t.device)]

    @torch.no_grad()
    def returns(self, state: State) -> Tensor:
        """The targets along the rollout, (T,B)."""
        costs, ahead, xs, policy = [], [], state.xs, self.one_step
        for k in range(len(xs) - 1):
            t = torch.full((xs.shape[1],), k, device=xs.device)
            costs.append(policy.guided.running_cost(xs[k], t, policy.sampler(xs[k], t, state.J, state.cond)))
            ahead.append(policy.capped(state.J(xs[k + 1], t + 1)))
        return lambda_returns(torch.stack(costs), torch.stack(ahead), self.trace)


class ValueAverages:
    """The moving averages of the value follow it."""

    def __init__(self, players: Players):
        self.players = players

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Nothing to log."""
        self.players.follow_value()
        return {}
