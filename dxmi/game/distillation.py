"""Score distillation as a term of the sampler's loss (DMD2, arXiv 2405.14867)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from dxmi.api import KnowsScore, NoisedData
from dxmi.api.noise import per_row
from dxmi.config.game import GameConfig
from dxmi.game.contrast import Nodes
from dxmi.game.players import Players
from dxmi.game.state import State


class ScoreDistillation:
    """The gradient of KL(samples || teacher) at random noise levels above each node.

    A network that starts as the teacher learns online what clean data the student's states come from. Where it takes
    for clean something else than the teacher does, the student moves towards the teacher's.
    """

    def __init__(self, game: GameConfig, players: Players):
        self.weight, self.players = game.distil, players
        self.nodes = Nodes(cast(NoisedData, players.sampler), renoise=1.0)
        self.weights = self.nodes.weights(game.node_weights)

    def __call__(self, state: State, k: int, x_next: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``distillation``: how far the two estimates are apart, relative to the teacher's error."""
        sampler, score = cast(KnowsScore, self.players.sampler), self.players.score
        with torch.no_grad():
            shown, level = self.nodes.seen(x_next, k + 1)
            wanted = sampler.denoised(shown, level, state.cond)
            apart = sampler.denoised(shown, level, state.cond, score) - wanted
            # The scale of DMD: where the teacher is less sure of what the state comes from, it counts less.
            alpha, _ = self.nodes.sampler.at_level(self.nodes.sampler.noise_levels[k + 1])
            scale = (x_next / alpha - wanted).abs().flatten(1).mean(1).clamp_min(1e-3)
            direction = apart / per_row(scale, x_next)
        loss = (x_next * direction).flatten(1).mean(1).mean()
        return self.weight * self.weights[k] * loss, {"distillation": direction.abs().mean()}


class ScoreUpdate:
    """The samples' score network learns to denoise the samples of the round.

    At nodes before the last that is the score of states as far as these are samples with noise, as at the optimum.
    """

    def __init__(self, players: Players):
        self.players = players
        self.nodes = Nodes(cast(NoisedData, players.sampler), renoise=1.0)

    def __call__(self, state: State) -> dict[str, Tensor]:
        """``score_loss``: the mean squared error of the noise, relative to the state's."""
        sampler = cast(KnowsScore, self.players.sampler)
        x = state.xs[-1]
        shown, level = self.nodes.seen(x, self.nodes.last)
        alpha, sigma = cast(NoisedData, sampler).at_level(level)
        apart = sampler.denoised(shown, level, state.cond, self.players.networks["score"]) - x
        loss = (per_row((alpha / sigma).clamp(max=20.0), x) * apart).square().mean()
        self.players.descend("score", loss)
        return {"score_loss": loss.detach()}
