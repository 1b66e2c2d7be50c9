"""The sampler's part of a round where the value is learned by contrast (MATH 3.4 with 3.7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from dxmi.api import Imitates, NoisedData, Transition
from dxmi.config.game import GameConfig
from dxmi.game.contrast import Nodes
from dxmi.game.objectives import running_cost
from dxmi.game.players import Players, frozen
from dxmi.game.state import State


class Term(Protocol):
    """What the sampler descends at a transition beside its cost to go."""

    def __call__(self, state: State, k: int, x_next: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
        """At transition k, which led to x_{k+1} (B,*S): a scalar with its weight, and what to log; None for nothing."""


class ContrastPolicyUpdate:
    """One step of the optimiser over all transitions of a rollout, through a frozen energy that sees their ends.

    They are learned from one after the other, so that memory is that of one.
    """

    def __init__(self, game: GameConfig, players: Players, terms: Sequence[Term] = ()):
        self.game, self.players, self.terms = game, players, terms
        self.nodes = Nodes(cast(NoisedData, players.sampler), game.noise, game.renoise)

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``policy_loss`` and ``policy_gradient``, and what the terms log, averaged over transitions."""
        log: dict[str, list[Tensor]] = {"policy_loss": []}
        with frozen(*self.players.judges()):
            gradient = self.players.descend("sampler", self.losses(state, log))
        whole = torch.stack(log.pop("policy_loss")).sum()
        means = {name: torch.stack(values).mean() for name, values in log.items()}
        return {"policy_loss": whole, **means, "policy_gradient": gradient}

    def losses(self, state: State, log: dict[str, list[Tensor]]) -> Iterator[Tensor]:
        """What is descended of each transition."""
        weights = self.nodes.weights(self.game.node_weights)
        for k in range(self.nodes.last):
            cost, x_next = self.cost(state, k)
            loss = weights[k] * cost
            log["policy_loss"].append(loss.detach())
            for term, found in filter(None, [term(state, k, x_next) for term in self.terms]):
                loss = loss + term
                for name, value in found.items():
                    log.setdefault(name, []).append(value)
            yield loss

    def cost(self, state: State, k: int) -> tuple[Tensor, Tensor]:
        """The mean soft cost to go of the transitions from x_k, a scalar, and where they lead, (B,*S)."""
        assert state.s2 is not None
        x, t = state.xs[k], torch.full((state.xs.shape[1],), k, device=state.xs.device)
        step: Transition = self.players.networks["sampler"](x, t, state.J, state.cond)
        x_next = step.sample()
        value = self.players.energy(*self.nodes.seen(x_next, k + 1), state.cond)
        costs = value + running_cost(x, step, x_next, state.s2[k], self.game.tau1, self.game.tau2)
        return costs.mean(), x_next


class ImitationTerm:
    """The distance to the teacher's own steps, guidance and all, at the rollout's states."""

    def __init__(self, weight: float, players: Players):
        self.weight, self.sampler = weight, cast(Imitates, players.sampler)

    def __call__(self, state: State, k: int, x_next: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``imitation``."""
        t = torch.full((len(x_next),), k, device=x_next.device)
        apart = self.sampler.imitation(state.xs[k], t, state.cond)
        return self.weight * apart, {"imitation": apart.detach()}
