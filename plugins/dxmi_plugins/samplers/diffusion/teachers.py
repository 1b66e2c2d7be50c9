"""A pretrained diffusers pipeline as a teacher: its network, its noise levels and the solvers people run it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from torch import Generator, Tensor

from dxmi.api import ConfigError, Draw, randn

SOLVERS = {
    "teacher-ddim": DDIMScheduler,
    "teacher-dpmsolver++": DPMSolverMultistepScheduler,
    "teacher-unipc": UniPCMultistepScheduler,
}
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


class Teacher(NamedTuple):
    """A pixel-space pipeline with a ``UNet2DModel``: ``x_t = alphas[t]*x0 + sigmas[t]*eps``, both (N,)."""

    unet: UNet2DModel
    scheduler_config: dict[str, Any]
    alphas: Tensor
    sigmas: Tensor
    prediction_type: str


def load_teacher(name: str) -> Teacher:
    """The pipeline in a folder or under a hub id.

    Raises:
        ConfigError: it is missing, no pipeline, or of a kind that is not supported
    """
    pipeline = _load_pipeline(name)
    unet: Any = getattr(pipeline, "unet", None)
    scheduler: Any = getattr(pipeline, "scheduler", None)
    if not isinstance(unet, UNet2DModel) or unet.config.num_class_embeds or unet.config.class_embed_type:
        raise ConfigError(f"teacher: {name} has no unconditional UNet2DModel; DDPM, DDIM and PNDM pipelines have")
    if unet.config.out_channels != unet.config.in_channels:
        raise ConfigError(f"teacher: the network of {name} predicts a variance too, which is not supported")
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ConfigError(
            f"teacher: the {type(scheduler).__name__} of {name} has no alphas_cumprod; use a DDPMScheduler"
        )
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise ConfigError(f"teacher: {name} predicts '{kind}'; supported are {', '.join(PREDICTION_TYPES)}")
    abar = scheduler.alphas_cumprod.double()
    return Teacher(unet, dict(scheduler.config), abar.sqrt(), (1 - abar).sqrt(), kind)


def _load_pipeline(name: str) -> DiffusionPipeline:
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ConfigError(f"teacher: there is no folder {name}; give a diffusers pipeline's folder or hub id")
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise ConfigError(f"teacher: {name} is not a diffusers pipeline: it has no model_index.json")
    try:
        return DiffusionPipeline.from_pretrained(str(folder) if folder.is_dir() else name)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"teacher: {name} could not be loaded as a diffusers pipeline: {reason}") from error


def solver(teacher: Teacher, scheduler_class: type[Any], device: torch.device) -> Draw:
    """The teacher under one of diffusers' training-free solvers, at its defaults for the teacher's config."""
    unet = teacher.unet.to(device).eval()
    size = (unet.config.sample_size,) * 2 if isinstance(unet.config.sample_size, int) else unet.config.sample_size

    @torch.no_grad()
    def draw(n: int, steps: int, generator: Generator) -> Tensor:
        scheduler = scheduler_class.from_config(teacher.scheduler_config)
        scheduler.set_timesteps(steps, device=device)
        like = torch.empty(0, device=device)
        x: Tensor = randn((n, unet.config.in_channels, *size), like, generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(unet(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
        return x

    return draw
