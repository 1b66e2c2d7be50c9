"""The noise levels of a teacher, read off its scheduler (MATH 2)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

from dxmi.api import ConfigError, Levels
from dxmi_plugins.schedulers.annealed_langevin import AnnealedLangevinScheduler

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


SUPPORTED = "schedulers with alphas_cumprod (DDPM, DDIM, PNDM, DPM-Solver, Euler ...), EDM, flow matching, annealed"


def levels_of(scheduler: Any) -> Levels:
    """The levels at which a network was trained, by the scheduler it comes with; float64.

    Raises:
        ConfigError: the scheduler or its prediction type is not supported
    """
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigmas = scheduler.sigmas.double().flip(0)  # as they are before any run: they have the shift
        return Levels(sigmas * scheduler.config.num_train_timesteps, 1 - sigmas, sigmas, "flow_prediction")
    if isinstance(scheduler, AnnealedLangevinScheduler):
        sigmas = scheduler.sigmas.double()
        return Levels(torch.arange(len(sigmas)), torch.ones_like(sigmas), sigmas, kind)
    if kind not in PREDICTION_TYPES:
        raise ConfigError("teacher", f"its {name} predicts '{kind}'", f"supported are {', '.join(PREDICTION_TYPES)}")
    if isinstance(scheduler, EDMEulerScheduler | EDMDPMSolverMultistepScheduler):
        return edm_levels(scheduler, kind)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ConfigError("teacher", f"{name} is not supported", f"supported are {SUPPORTED}")
    abar = scheduler.alphas_cumprod.double()
    return Levels(torch.arange(len(abar)), abar.sqrt(), (1 - abar).sqrt(), kind)


def edm_levels(scheduler: Any, kind: str) -> Levels:
    """Levels in the coordinates ``y = c_in(s)*x`` that the raw network sees, so that it starts from unit noise.

    On data divided by sigma_data it is a variance-preserving v-prediction teacher, up to the sign.
    """
    s, sigma_data = scheduler.sigmas[:-1].double().flip(0), scheduler.config.sigma_data
    c_in = (s**2 + sigma_data**2) ** -0.5
    return Levels(s.log() / 4, c_in, c_in * s, "edm" if kind == "epsilon" else kind, sigma_data)
