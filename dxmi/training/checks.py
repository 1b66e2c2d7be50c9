"""Whether the parts of a run fit each other: found out before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from dxmi.api import GaussianSampler, Imitates, KnowsPaths, KnowsScore, Marginals, NoisedData, Perturbs, ValueGuided
from dxmi.api.errors import require
from dxmi.config import TrainConfig
from dxmi.game.rollouts import perturb
from dxmi.runs.finished import NO_SAMPLES, can_be_drawn

UNKEPT = "has no noising chain, so nothing to learn from kept states"


class Row(NamedTuple):
    """A condition on the values of two keys or more; a config checks what concerns itself alone."""

    key: str
    holds: bool
    reason: str
    """why it has to"""
    cure: str = "leave it out"


def check_parts(run: TrainConfig, shape: tuple[int, ...]) -> None:
    """Raise ConfigError, which tells the first condition that does not hold; shape is S of the data."""
    for rows in (start_rows, learning_rows, value_rows, contrast_rows, noised_rows, guided_rows):
        for row in rows(run):
            require(row.holds, row.key, row.reason, row.cure)
    if not isinstance(run.sampler, ValueGuided):
        return
    if run.game.start == "data":
        perturb(run.sampler, torch.zeros(1, *shape))  # its noise comes before the weights': so seeds keep their meaning
    if run.energy.event_shape is not None:
        run.energy.with_gradient(torch.zeros(1, *run.energy.event_shape))  # says so if there is none
    if run.replay is not None:
        run.replay.check(run.sampler.tau)
    for row in replay_rows(run):
        require(row.holds, row.key, row.reason, row.cure)


def start_rows(run: TrainConfig) -> Iterator[Row]:
    """Where chains start."""
    start, fixed, kind = run.game.start, not isinstance(run.sampler, GaussianSampler), type(run.sampler).__name__
    also, guided = ", or samplers that follow a value", isinstance(run.sampler, ValueGuided)
    able = start == "noise" or fixed or (guided and start == "data")
    yield Row("game.start", able, f"{start} is for chains that cannot learn{also if start == 'data' else ''}")
    kept = start == "noise" or not fixed or run.sampler.stationary
    yield Row("game.start", kept, f"{kind} has to start from noise", "take chains that keep the density, as mala")
    yield Row("game.start", start != "data" or run.data is not None, "there are no data to start from")
    if run.data is not None and start == "chains":
        batch, chains = run.data.batch_size, run.game.chains
        yield Row("game.chains", chains >= batch, f"{chains} do not fill a batch of {batch}", "give more")


def learning_rows(run: TrainConfig) -> Iterator[Row]:
    """Whether there is something to learn, and somebody who can."""
    fixed, kind, imitate = not isinstance(run.sampler, GaussianSampler), type(run.sampler).__name__, run.game.imitate
    valued = not fixed and (run.value is not None or any(True for _ in run.energy.parameters()))
    yield Row("game.value_steps", run.game.value_steps == 1 or valued, "there is no value to learn")
    yield Row("game.energy_steps", run.game.energy_steps == 1 or run.data is not None, "a known density does not learn")
    learns = not fixed or run.data is not None
    yield Row("sampler", learns, "neither this chain nor a known density learns", "draw with 'dxmi sample'")
    yield Row("game.imitate", not (fixed and imitate), "a chain that cannot learn imitates nothing")
    if isinstance(run.sampler, GaussianSampler):
        must, able = run.sampler.must_imitate, isinstance(run.sampler, Imitates)
        due = "the student has to learn its teacher's guidance"
        yield Row("game.imitate", bool(imitate) or not must, due, "set it, to 1 for one")
        yield Row("game.imitate", not imitate or able, f"{kind} has no teacher to imitate")


def value_rows(run: TrainConfig) -> Iterator[Row]:
    """Who needs a value, and who has no use for one."""
    fixed, guided = not isinstance(run.sampler, GaussianSampler), isinstance(run.sampler, ValueGuided)
    none = run.value is None
    yield Row("value", none or not fixed, "a chain that cannot learn follows the energy", "leave the value out")
    named = "name one with time, such as informed"
    yield Row("value", not (guided and none), "the sampler follows a value's gradient", named)
    yield Row("lr.value", run.lr.value is None or not none, "there is no value network of its own")
    yield Row("lr.score", run.lr.score is None or run.game.distil > 0, "no score network learns without game.distil")


def contrast_rows(run: TrainConfig) -> Iterator[Row]:
    """What the value by contrast, the warm start and score distillation need."""
    game, sampler, kind = run.game, run.sampler, type(run.sampler).__name__
    contrast, told = game.value == "contrast", type(run.energy).__name__
    reads = "take one that does: teacher_features with noised: true, or conv with time: noise"
    if contrast:
        yield Row("game.value", run.data is not None, "contrast needs data", "take td")
        able = isinstance(sampler, NoisedData)
        yield Row("game.value", able, f"contrast: the states of {kind} are not data with noise", "take td")
        yield Row("energy", run.energy.reads_noise, f"{told} is not told the noise level, which contrast needs", reads)
        yield Row("value", run.value is None, "with contrast the energy is the value at every node")
        yield Row("game.start", game.start == "noise", "contrast is along rollouts from noise")
    else:
        yield Row(
            "energy", not run.energy.reads_noise, f"{told} reads noise levels, not steps", "set game.value: contrast"
        )
    for key, wanted, able in (
        ("warm_start", game.warm_start is not None, isinstance(sampler, KnowsPaths)),
        ("distil", bool(game.distil), isinstance(sampler, KnowsScore)),
    ):
        yield Row(f"game.{key}", able or not wanted, f"{kind} has no teacher to learn from")
        yield Row(f"game.{key}", run.data is not None or not wanted, "it is for runs on data")


def noised_rows(run: TrainConfig) -> Iterator[Row]:
    """Whether there are data to be noised, enough of them, and a chain to do it."""
    noised, fixed = run.game.noised, not isinstance(run.sampler, GaussianSampler)
    if noised:
        due = not fixed and run.data is not None
        yield Row("game.noised", due, "it is for samplers that learn from data")
        batch = 0 if run.data is None else run.data.batch_size
        yield Row("game.noised", round(noised * batch) > 0, f"{noised} of {batch} states is none", "give more")
        yield Row("game.noised", isinstance(run.sampler, Marginals), f"{type(run.sampler).__name__} {UNKEPT}")


def guided_rows(run: TrainConfig) -> Iterator[Row]:
    """What is for value-guided samplers, and what these need."""
    guided, game = isinstance(run.sampler, ValueGuided), run.game
    used = {
        "game.explore": game.explore != 1,
        "game.trace": game.trace != 0,
        "game.target": game.target != 0,
        "game.ceiling": game.ceiling is not None,
        "replay": run.replay is not None,
    }
    for key, given in used.items():
        yield Row(key, guided or not given, "it is for samplers that follow a value, such as vgs")
    if guided:
        perturbs = isinstance(run.sampler, Perturbs | Marginals)
        yield Row("game.start", game.start != "data" or perturbs, f"{type(run.sampler).__name__} {UNKEPT}")
        yield Row("evaluators", can_be_drawn(run) or not run.evaluators, NO_SAMPLES, "leave them out")


def replay_rows(run: TrainConfig) -> Iterator[Row]:
    """What a replay needs, and what is idle beside it."""
    if run.replay is None:
        return
    known = run.energy.event_shape is not None
    yield Row("replay", known, "its states come from a known density, and the energy is a network", "")
    if run.replay.learn == "denoise":
        idle = {
            "sweep": run.game.sweep,
            "value_steps": run.game.value_steps != 1,
            "trace": bool(run.game.trace),
            "ceiling": run.game.ceiling is not None,
        }
        for key, used in idle.items():
            yield Row(f"game.{key}", not used, "rollouts teach nothing with replay.learn: denoise")
    yield Row("replay", isinstance(run.sampler, Marginals), f"{type(run.sampler).__name__} {UNKEPT}")
