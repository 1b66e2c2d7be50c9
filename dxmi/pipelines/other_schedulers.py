"""Schedulers of diffusers: another one for the same noise levels, and noise of each sample's own in its steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from torch import Tensor

from dxmi.api import ConfigError
from dxmi.api.errors import first_line, require

Method = Callable[..., Any]

CALLED = ("set_timesteps", "scale_model_input", "step")
"""what pipelines call of a scheduler"""

ERRORS = (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError)
"""what schedulers and pipelines raise about what they are given"""


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
    levels = [set(inspect.signature(each.__init__).parameters) & {"sigma_data"} for each in (type(own), kind)]  # EDM's
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


def takes_generator(scheduler: Any) -> bool:
    """Whether its steps draw their noise from a generator that they are given."""
    return "generator" in inspect.signature(scheduler.step).parameters


def for_a_draw(scheduler: Any, steps: int, generator: Any) -> Any:
    """The same one, never used, for one draw in this many steps.

    It is of a class of its own below the scheduler's, which pipelines ask for. Its steps draw their noise from
    ``generator``, which a pipeline may not hand on. What it raises itself is a ConfigError about ``steps``: it sees
    only their number and what networks make, and all else that fails under a pipeline is not the number's fault.
    """
    kind = type(scheduler)
    methods = {name: blaming(getattr(kind, name), kind.__name__, steps) for name in CALLED if hasattr(kind, name)}
    if takes_generator(scheduler):
        methods["step"] = drawing_from(generator, methods["step"])
    below: Any = type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})
    return below.from_config(scheduler.config)


def blaming(method: Method, name: str, steps: int) -> Method:
    """The method of a scheduler of this name, whose errors are ConfigErrors about the number of steps."""
    signature = inspect.signature(method)

    @wraps(method)  # pipelines look which options there are
    def called(*given: Any, **options: Any) -> Any:
        try:
            signature.bind(*given, **options)
        except TypeError:  # the pipeline is for other schedulers, and whatever the number, this fails
            return method(*given, **options)
        try:
            return method(*given, **options)
        except ConfigError:
            raise
        except ERRORS as error:
            raise ConfigError("steps", f"{steps} with {name}: {first_line(error)}") from error

    return called


def drawing_from(generator: Any, step: Method) -> Method:
    """A scheduler's ``step`` with noise from these; a guided batch has a copy of each image."""

    @wraps(step)
    def called(self: Any, output: Tensor, timestep: Any, sample: Tensor, *more: Any, **options: Any) -> Any:
        each = [*generator] * (len(sample) // len(generator)) if isinstance(generator, Sequence) else generator
        return step(self, output, timestep, sample, *more, **{**options, "generator": each})

    return called
