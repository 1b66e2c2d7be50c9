"""Schedulers of diffusers: another one for the same noise levels, and noise of each sample's own in its steps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import wraps
from traceback import walk_tb
from typing import Any

from torch import Tensor

from dxmi.api import ConfigError
from dxmi.api.errors import first_line, require


def other_scheduler(own: Any, name: str) -> Any:
    """A scheduler of diffusers by its class's name, for the noise levels of ``own``.

    Raises:
        ConfigError: there is none of this name, it is for other noise levels or lacks a package, or the steps of
            ``own`` were learned
    """
    import diffusers

    require("table" not in own.config, "schedulers", "a student's steps were learned together", "leave it out")
    other = ("Flax", "Inverse")  # of another framework, or towards noise
    known = [k for k in dir(diffusers) if k.endswith("Scheduler") and not any(word in k for word in other)]
    require(name in known, "schedulers", f"diffusers has no '{name}'", "names are such as DPMSolverMultistepScheduler")
    kind = getattr(diffusers, name)
    related = type(own).__name__ in getattr(kind, "_compatibles", []) or name in getattr(own, "_compatibles", [])
    levels = [
        set(inspect.signature(found.__init__).parameters) & {"sigma_data"} for found in (type(own), kind)
    ]  # EDM's
    require(
        (related or kind is type(own)) and levels[0] == levels[1],
        "schedulers",
        f"{name} reads no noise levels of {type(own).__name__}",
        "diffusers knows which do ('compatibles')",
    )
    config = dict(own.config)
    if "variance_type" in config and name != "DDPMScheduler":
        config.pop("variance_type")  # the variance is dropped before the scheduler would look for it
    try:
        return kind.from_config(config)
    except (ImportError, ValueError, NotImplementedError) as error:
        raise ConfigError("schedulers", f"{name} cannot be made: {first_line(error)}") from error


def fresh(scheduler: Any) -> Any:
    """The same one, never used: some read what the last call has left."""
    return type(scheduler).from_config(scheduler.config)


def takes_generator(scheduler: Any) -> bool:
    """Whether its steps draw their noise from a generator that they are given."""
    return "generator" in inspect.signature(scheduler.step).parameters


def hand(scheduler: Any, generator: Any) -> None:
    """Hand the generators to a scheduler, which its pipeline may not do; a guided batch has a copy of each image."""
    if not takes_generator(scheduler):
        return
    step = scheduler.step

    @wraps(step)  # pipelines look which options there are
    def given(output: Tensor, timestep: Any, sample: Tensor, *more: Any, **options: Any) -> Any:
        own = generator
        if isinstance(generator, Sequence):
            own = [*generator] * (len(sample) // len(generator))
        return step(output, timestep, sample, *more, **{**options, "generator": own})

    scheduler.step = given


def is_from(scheduler: Any, error: BaseException) -> bool:
    """Whether an error was raised within a scheduler, which sees only numbers of steps and what networks make."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any(name == type(scheduler).__module__ or name.startswith("diffusers.schedulers") for name in modules)
