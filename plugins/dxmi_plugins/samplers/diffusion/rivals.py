"""The unchanged teacher under training-free solvers: what a user would pick instead of the student."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from dxmi.api import Draw, randn
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import Teacher

VP = {
    "teacher-ddim": DDIMScheduler,
    "teacher-dpmsolver++": DPMSolverMultistepScheduler,
    "teacher-unipc": UniPCMultistepScheduler,
}


EDM = {"teacher-euler": EDMEulerScheduler, "teacher-dpmsolver++": EDMDPMSolverMultistepScheduler}


FLOW = {"teacher-euler": FlowMatchEulerDiscreteScheduler}


# Variance channels are dropped before the solver could split them off, and sizes do not change the shift here. The
# student's steps threshold nothing, and rivals are to be compared with them.
IGNORED = ("variance_type", "use_dynamic_shifting", "thresholding")


DrawConditions = Callable[[int, Any], Tensor | None]


def solvers(teacher: Teacher, conditions: DrawConditions, device: torch.device) -> dict[str, Draw]:
    """The solvers that diffusers has for this kind of teacher, at their defaults for its config, by name.

    For a variance-exploding one it has none: that is drawn from by Euler steps on trailing nodes.
    """
    if hasattr(teacher.pipeline.scheduler, "alphas_cumprod"):
        kinds = VP
    elif teacher.levels.sigma_data is not None:
        kinds = EDM
    elif teacher.levels.prediction_type == "flow_prediction":
        kinds = FLOW
    else:
        return {"teacher-euler": Solver(teacher, _euler, conditions, device)}
    return {name: Solver(teacher, partial(_solve, kind), conditions, device) for name, kind in kinds.items()}


class Solver:
    """A ``Draw`` of a teacher: its noise is in the start alone, so that each sample may have its own generator."""

    per_sample = True

    def __init__(
        self, teacher: Teacher, solve: Callable[..., Tensor], conditions: DrawConditions, device: torch.device
    ):
        self.teacher, self.solve, self.conditions, self.device = teacher, solve, conditions, device

    @torch.no_grad()
    def __call__(self, n: int, steps: int, generator: Any) -> Tensor:
        """(n,*S), decoded."""
        self.teacher.network.to(self.device)
        cond = self.conditions(n, generator)
        noise = randn((n, *self.teacher.shape), torch.empty(0, device=self.device), generator)
        return self.teacher.space.decode(self.solve(self.teacher, noise, steps, cond))

    def labels(self, n: int, generator: Any) -> Tensor | None:
        """The labels (n,) that it draws at from this noise; None where the teacher takes none."""
        return None if self.teacher.conditions.classes is None else self.conditions(n, generator)


def _solve(scheduler_class: type[Any], teacher: Teacher, noise: Tensor, steps: int, cond: Tensor | None) -> Tensor:
    config = {key: value for key, value in teacher.pipeline.scheduler.config.items() if key not in IGNORED}
    scheduler = scheduler_class.from_config(config)
    scheduler.set_timesteps(steps, device=noise.device)
    x: Tensor = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output = teacher.call(teacher.network, seen, t.expand(len(x)), cond)
        x = scheduler.step(output, t, x).prev_sample
    return x


def _euler(teacher: Teacher, noise: Tensor, steps: int, cond: Tensor | None) -> Tensor:
    schedule = AncestralScheduler(steps, eta=0.0).bind(teacher.levels)
    x = noise * schedule.init_noise_sigma
    for k, t in enumerate(schedule.timesteps.to(noise.device)):
        output = teacher.call(teacher.network, x, t.expand(len(x)), cond)
        x, _ = schedule.transition(output, x, torch.tensor([k], device=x.device))
    return x
