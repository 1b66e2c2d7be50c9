"""A teacher from scratch: a ``UNet2DModel`` trained with the DDPM loss, saved as a ``DDPMPipeline``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.data import Data, draw_batch, load_images
from dxmi.errors import ConfigError, require

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


@dataclass(kw_only=True)
class Pretrain:
    """Every key of ``dxmi pretrain``'s YAML file.

    Args:
        data: the images
        seed: of weights, noise and batches
        steps: optimiser steps
        unet: options of diffusers' UNet2DModel; channels and size are read from the images
        noise: options of diffusers' DDPMScheduler (num_train_timesteps, beta_schedule, prediction_type, ...)
        lr: peak learning rate of AdamW, reached after ``warmup`` steps and then lowered along a cosine to 0
        warmup: steps of the rise
        clip: largest gradient norm
        ema: decay of the moving average of the weights, which is what gets saved
    """

    data: Data
    seed: int = 0
    steps: int = 10_000
    unet: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)
    lr: float = 2e-4
    warmup: int = 500
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps: {self.steps} train nothing; give 1 or more")
        require(self.lr > 0 and self.clip > 0 and self.warmup >= 0, "lr and clip are positive, warmup is not negative")
        require(0 <= self.ema < 1, f"ema: {self.ema} is not in [0, 1)")


def build(kind: Any, key: str, options: dict[str, Any]) -> Any:
    """``kind(**options)``; raises ConfigError naming ``key`` for an option it does not have or accept."""
    known = [p for p in inspect.signature(kind.__init__).parameters if p != "self"]
    for option in options:
        if option not in known:
            raise ConfigError(f"{key}.{option}: {kind.__name__} has no such option; it has {', '.join(known)}")
    try:
        return kind(**options)
    except (ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise ConfigError(f"{key}: {kind.__name__} refuses these options: {error}") from error


def ddpm_loss(network: nn.Module, scheduler: Any, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """DDPM's simple loss (Ho et al. 2020): x0, noise (B,C,H,W), t (B,) -> scalar, by prediction type."""
    kind = scheduler.config.prediction_type
    target = noise if kind == "epsilon" else x0 if kind == "sample" else scheduler.get_velocity(x0, noise, t)
    return F.mse_loss(network(scheduler.add_noise(x0, noise, t), t).sample, target)


def pretrain(run: Pretrain, out: Path) -> Path:
    """Train and save the averaged network as a ``DDPMPipeline`` in ``out``, which must not hold one yet.

    Raises:
        ConfigError: what the config asks for cannot be built
    """
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup

    if (out / "model_index.json").exists():
        raise ConfigError(f"--out: {out} already holds a pipeline; give another folder")
    images = load_images(run.data)
    channels, *size = images.event_shape
    set_seed(run.seed)
    scheduler = build(DDPMScheduler, "noise", run.noise)
    kind = scheduler.config.prediction_type
    require(kind in PREDICTION_TYPES, f"noise.prediction_type: '{kind}' is none of {', '.join(PREDICTION_TYPES)}")
    require("num_class_embeds" not in run.unet, "unet.num_class_embeds: teachers are unconditional; leave it out")
    fixed = {"in_channels": channels, "out_channels": channels, "sample_size": size[0] if size[0] == size[1] else size}
    unet = build(UNet2DModel, "unet", {**run.unet, **fixed})
    accelerator = Accelerator()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=run.lr)
    schedule = get_cosine_schedule_with_warmup(optimizer, run.warmup, run.steps)
    network, optimizer = accelerator.prepare(unet, optimizer)
    ema = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(run.ema))  # type: ignore[no-untyped-call]
    set_seed(run.seed, device_specific=True)
    steps = range(run.steps)
    for k in track(steps, "pretraining", disable=not accelerator.is_main_process):
        x0 = draw_batch(images, run.data, k, run.seed, accelerator)
        noise, t = torch.randn_like(x0), torch.randint(len(scheduler), (len(x0),), device=x0.device)
        loss = ddpm_loss(network, scheduler, x0, noise, t)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), run.clip)
        optimizer.step()
        schedule.step()
        ema.update_parameters(unet)
        if (k % 100 == 0 or k == run.steps - 1) and not loss.isfinite():
            raise FloatingPointError(f"the loss is not finite in step {k}; lower lr")
    if accelerator.is_main_process:
        DDPMPipeline(unet=ema.module.eval(), scheduler=scheduler).save_pretrained(out)
        print(f"last loss {loss.item():.4f}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return out
