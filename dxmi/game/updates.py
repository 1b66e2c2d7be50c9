"""Which updates a round of the game has, chosen once from its config."""

from __future__ import annotations

from dxmi.api import GaussianSampler, ValueGuided
from dxmi.config.game import GameConfig
from dxmi.game.contrast import ContrastUpdate
from dxmi.game.contrast_policy import ContrastPolicyUpdate, ImitationTerm, Term
from dxmi.game.distillation import ScoreDistillation, ScoreUpdate
from dxmi.game.energy_update import EnergyUpdate, EnergyWatch
from dxmi.game.players import Players
from dxmi.game.replay_buffer import ReplayBuffer
from dxmi.game.replay_updates import ReplayScore, ReplayTemporalDifference
from dxmi.game.rollouts import Rollouts
from dxmi.game.sampler_updates import (
    ImitatingPolicyUpdate,
    ImitationUpdate,
    PolicyUpdate,
    SamplerAverage,
    StartUpdate,
    Warmup,
)
from dxmi.game.state import Update
from dxmi.game.targets import RedrawnTarget, SoftBellmanTarget, TimeCostTarget
from dxmi.game.value_updates import LambdaReturns, TemporalDifference, ValueAverages, VelocityUpdate
from dxmi.game.warm_start import WarmStart


def choose_updates(
    game: GameConfig,
    players: Players,
    rollouts: Rollouts,
    buffer: ReplayBuffer | None = None,
    warm_start: WarmStart | None = None,
) -> list[Update]:
    """What happens in a round after its rollout, in this order."""
    if game.value == "contrast":
        return contrast_updates(game, players, rollouts, warm_start)
    energy = EnergyUpdate(game, players) if "energy" in players.networks else EnergyWatch(players)
    sampler = players.sampler
    if not isinstance(sampler, GaussianSampler):
        return [energy]
    return [
        energy,
        VelocityUpdate(game.avr, players),
        *value_updates(game, players, sampler, rollouts, buffer),
        ValueAverages(players),
        *sampler_updates(game, players, rollouts),
    ]


def contrast_updates(
    game: GameConfig, players: Players, rollouts: Rollouts, warm_start: WarmStart | None
) -> list[Update]:
    """With the value by contrast: the energy at every node, then the sampler at every transition."""
    terms: list[Term] = [ImitationTerm(game.imitate, players)] if game.imitate else []
    if warm_start is not None and warm_start.settings.keep:
        terms.append(warm_start)
    updates: list[Update] = [ContrastUpdate(game, players), VelocityUpdate(game.avr, players)]
    average = SamplerAverage(players)
    score: list[Update] = []
    if game.distil:
        terms.append(ScoreDistillation(game, players))
        score.append(ScoreUpdate(players))
    before: list[Update] = [ImitationUpdate(game.imitate, players, rollouts), average] if game.imitate else []
    after: list[Update] = [ContrastPolicyUpdate(game, players, terms), average]
    return [*updates, *score, Warmup(game.warmup, players, before, after)]


def value_updates(
    game: GameConfig, players: Players, sampler: GaussianSampler, rollouts: Rollouts, buffer: ReplayBuffer | None
) -> list[Update]:
    """How the value learns: from the rollout, unless the replay teaches it scores, and from the replay."""
    redrawn = RedrawnTarget(game.ceiling, sampler)
    by_score = buffer is not None and buffer.settings.learn == "denoise"
    updates: list[Update] = []
    if players.valued in players.networks and not by_score:
        updates.append(temporal_difference(game, players, sampler, rollouts, redrawn))
    if buffer is not None:
        td = ReplayTemporalDifference(players, buffer, redrawn)
        updates.append(ReplayScore(players, buffer) if by_score else td)
    return updates


def temporal_difference(
    game: GameConfig, players: Players, sampler: GaussianSampler, rollouts: Rollouts, redrawn: RedrawnTarget
) -> TemporalDifference:
    """From which targets the value learns along a rollout."""
    times = game.value_steps
    if game.trace:
        return LambdaReturns(players, rollouts, redrawn, times, game.trace)
    if isinstance(sampler, ValueGuided):
        return TemporalDifference(players, rollouts, redrawn, times, first=0)
    if game.time_cost is not None:
        timed = TimeCostTarget(game.time_cost, sampler.steps)
        return TemporalDifference(players, rollouts, timed, times, first=1)
    return TemporalDifference(players, rollouts, SoftBellmanTarget(game, sampler), times, first=1)


def sampler_updates(game: GameConfig, players: Players, rollouts: Rollouts) -> list[Update]:
    """How the sampler learns, in the warm-up and from then on; none where it has nothing to learn."""
    if "sampler" not in players.networks:
        return []
    learn: list[Update]
    if not isinstance(players.sampler, ValueGuided):
        learn = [(ImitatingPolicyUpdate if game.imitate else PolicyUpdate)(game, players, rollouts)]
    else:  # which has no value where it starts if that is at data
        learn = [] if game.start == "data" else [StartUpdate(players)]
    average = SamplerAverage(players)
    imitate: list[Update] = [ImitationUpdate(game.imitate, players, rollouts), average] if game.imitate else []
    return [Warmup(game.warmup, players, imitate, [*learn, average])]
