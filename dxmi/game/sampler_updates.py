"""The sampler's part of a round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from dxmi.api import Imitates, Transition, ValueGuided
from dxmi.config.game import GameConfig
from dxmi.game.objectives import soft_q
from dxmi.game.players import Players, frozen
from dxmi.game.rollouts import Rollouts
from dxmi.game.state import State, Update, means


class PolicyUpdate:
    """MATH (3.4): single transitions, through a frozen value; memory does not grow with T."""

    def __init__(self, game: GameConfig, players: Players, rollouts: Rollouts):
        self.game, self.players, self.rollouts = game, players, rollouts

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``policy_loss``."""
        logs = []
        with frozen(*self.players.judges()):
            for x, t, _ in self.rollouts.transitions(state):
                loss, log = self.loss(state, x, t)
                self.players.descend("sampler", loss)
                logs.append(log)
        return means(logs)

    def loss(self, state: State, x: Tensor, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What is descended at x_t (B,*S), t (B,), and what of it is logged: scalars."""
        assert state.s2 is not None
        step: Transition = self.players.networks["sampler"](x, t, state.J, state.cond)
        loss = soft_q(state.J, x, t, step, step.sample(), state.s2[t], self.game.tau1, self.game.tau2).mean()
        return loss, {"policy_loss": loss.detach()}


class ImitatingPolicyUpdate(PolicyUpdate):
    """The same, and the distance to the teacher's steps beside it."""

    def loss(self, state: State, x: Tensor, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``policy_loss`` and ``imitation``, weighed by ``game.imitate``."""
        loss, log = super().loss(state, x, t)
        apart = cast(Imitates, self.players.sampler).imitation(x, t, state.cond)
        return loss + self.game.imitate * apart, {**log, "imitation": apart.detach()}


class ImitationUpdate:
    """The sampler from its teacher alone, at the states of its own rollout."""

    def __init__(self, weight: float, players: Players, rollouts: Rollouts):
        self.weight, self.players, self.rollouts = weight, players, rollouts

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``imitation``."""
        logs, sampler = [], cast(Imitates, self.players.sampler)
        for x, t, _ in self.rollouts.transitions(state):
            loss = sampler.imitation(x, t, state.cond)
            self.players.descend("sampler", self.weight * loss, wrapped=False)
            logs.append({"imitation": loss.detach()})
        return means(logs)


class StartUpdate:
    """MATH (4.6): the start of a value-guided sampler, which has nothing else to learn, descends V_0."""

    def __init__(self, players: Players):
        self.players = players

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``start_loss``."""
        with frozen(*self.players.judges()):
            loss = cast(ValueGuided, self.players.sampler).start_loss(state.J, tuple(state.xs.shape[1:]))
            self.players.descend("sampler", loss, wrapped=False)
        return {"start_loss": loss.detach()}


class SamplerAverage:
    """The sampler's moving average follows it."""

    def __init__(self, players: Players):
        self.players = players

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Nothing to log."""
        self.players.follow_sampler()
        return {}


class Warmup:
    """Some updates in the first ``rounds`` rounds, others from then on."""

    def __init__(self, rounds: int, players: Players, before: Sequence[Update], after: Sequence[Update]):
        self.rounds, self.players, self.before, self.after = rounds, players, before, after

    def __call__(self, state: State) -> dict[str, Tensor]:
        """What they log."""
        log: dict[str, Tensor] = {}
        for update in self.before if self.players.rounds < self.rounds else self.after:
            log |= update(state)
        return log
