"""Whether the parts of a run fit each other: found out before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from dxmi.api import ConfigError, GaussianSampler
from dxmi.api.errors import require
from dxmi.config import TrainConfig
from dxmi.runs.finished import NO_SAMPLES, can_be_drawn


def check_players(run: TrainConfig, data: bool, value_guided: bool) -> None:
    """Raise ConfigError if sampler, value and settings are not for each other; ``data`` says whether there are some."""
    fixed = not isinstance(run.sampler, GaussianSampler)
    if run.game.start != "noise" and not fixed and not (value_guided and run.game.start == "data"):
        also = ", or samplers that follow a value" if run.game.start == "data" else ""
        raise ConfigError("game.start", f"{run.game.start} is for chains that cannot learn{also}", "leave it out")
    if run.game.start != "noise" and fixed and not run.sampler.stationary:
        kind = type(run.sampler).__name__
        raise ConfigError("game.start", f"{kind} has to start from noise", "take chains that keep the density, as mala")
    if run.game.start == "data" and not data:
        raise ConfigError("game.start", "there are no data to start from", "leave it out")
    if run.data is not None and run.game.start == "chains" and run.game.chains < run.data.batch_size:
        raise ConfigError("game.chains", f"{run.game.chains} do not fill a batch of {run.data.batch_size}", "give more")
    if run.game.value_steps != 1 and (fixed or (run.value is None and not any(True for _ in run.energy.parameters()))):
        raise ConfigError("game.value_steps", "there is no value to learn", "leave it out")
    if fixed and not data:
        raise ConfigError("sampler", "neither this chain nor a known density learns", "draw with 'dxmi sample'")
    if fixed and run.game.imitate:
        raise ConfigError("game.imitate", "a chain that cannot learn imitates nothing", "leave it out")
    if isinstance(run.sampler, GaussianSampler) and run.sampler.must_imitate and not run.game.imitate:
        raise ConfigError("game.imitate", "the student has to learn its teacher's guidance", "set it, to 1 for one")
    if fixed and run.value is not None:
        raise ConfigError("value", "a chain that cannot learn follows the energy", "leave the value out")
    if value_guided and run.value is None:
        raise ConfigError("value", "the sampler follows a value's gradient", "name one with time, such as informed")
    if run.lr.value is not None and run.value is None:
        raise ConfigError("lr.value", "there is no value network of its own", "leave it out")
    if run.game.noised:
        check_noised(run, fixed)
    given = {
        "game.explore": run.game.explore != 1,
        "game.trace": run.game.trace != 0,
        "game.target": run.game.target != 0,
        "game.ceiling": run.game.ceiling is not None,
        "replay": run.replay is not None,
    }
    for key in (key for key, used in given.items() if used and not value_guided):
        raise ConfigError(key, "it is for samplers that follow a value, such as vgs", "leave it out")


def check_noised(run: TrainConfig, fixed: bool) -> None:
    """Raise ConfigError if there are no data to be noised, too few, or no chain to do it."""
    if fixed or run.data is None:
        raise ConfigError("game.noised", "it is for samplers that learn from data", "leave it out")
    if not round(run.game.noised * run.data.batch_size):
        raise ConfigError("game.noised", f"{run.game.noised} of {run.data.batch_size} states is none", "give more")
    ask("game.noised", lambda: cast(GaussianSampler, run.sampler).marginal(torch.zeros(1, dtype=torch.long)))


def ask(key: str, capability: Callable[[], object]) -> None:
    """Raise ConfigError if ``key`` needs what this sampler does not have."""
    try:
        capability()
    except NotImplementedError as error:
        raise ConfigError(key, f"{error}", "leave it out") from error


def check_value_guided(run: TrainConfig, shape: tuple[int, ...]) -> None:
    """Raise ConfigError if other parts are not for a sampler that follows a value; shape is S."""
    if run.game.start == "data":
        ask("game.start", lambda: cast(GaussianSampler, run.sampler).perturb(torch.zeros(1, *shape)))
    require(can_be_drawn(run) or not run.evaluators, "evaluators", f"{NO_SAMPLES}", "leave them out")
    if run.energy.event_shape is not None:
        run.energy.with_gradient(torch.zeros(1, *run.energy.event_shape))  # says so if there is none
    if run.replay is None:
        return
    run.replay.check(run.sampler.tau)
    if run.energy.event_shape is None:
        raise ConfigError("replay", "its states come from a known density, and the energy is a network")
    if run.replay.learn == "denoise":
        idle = {
            "sweep": run.game.sweep,
            "value_steps": run.game.value_steps != 1,
            "trace": run.game.trace,
            "ceiling": run.game.ceiling is not None,
        }
        for key in (key for key, used in idle.items() if used):
            raise ConfigError(f"game.{key}", "rollouts teach nothing with replay.learn: denoise", "leave it out")
    ask("replay", lambda: cast(GaussianSampler, run.sampler).marginal(torch.zeros(1, dtype=torch.long)))
