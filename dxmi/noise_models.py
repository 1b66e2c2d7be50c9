"""What ``dxmi pretrain`` can train with many noise levels: DDPM teachers, and score models for annealed Langevin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from dxmi import plugins, score_matching
from dxmi.data import Source
from dxmi.errors import ConfigError, require
from dxmi.items import Images
from dxmi.score_models import Model, build, cleanest, free_network, save_free, save_report, some
from dxmi.scores import convert

if TYPE_CHECKING:
    from dxmi.pretrain import Pretrain

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
FEW = 16  # images for a UNet's asymmetry: passes back through a pass back keep its activations several times


def ddpm_model(run: Pretrain, source: Source) -> Model:
    """A UNet that denoises at the levels of a ``DDPMScheduler``."""
    from diffusers import DDPMPipeline, DDPMScheduler

    scheduler = build(DDPMScheduler, "noise", run.noise)
    kind = scheduler.config.prediction_type
    require(kind in PREDICTION_TYPES, f"noise.prediction_type: '{kind}' is none of {', '.join(PREDICTION_TYPES)}")

    def loss(network: nn.Module, x0: Tensor) -> Tensor:
        noise, t = torch.randn_like(x0), torch.randint(len(scheduler), (len(x0),), device=x0.device)
        return ddpm_loss(network, scheduler, x0, noise, t)

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(out)
        return {}

    return Model(build_unet(run, source), loss, save)


def ddpm_loss(network: nn.Module, scheduler: Any, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """``score_matching.ddpm`` of a UNet at a scheduler's timesteps: x0, noise (B,C,H,W), t (B,) -> scalar per pixel."""
    kept = scheduler.alphas_cumprod.to(x0)[t]
    kind = scheduler.config.prediction_type
    losses = score_matching.ddpm(lambda x: network(x, t).sample, kind, x0, noise, kept.sqrt(), (1 - kept).sqrt())
    return losses.mean() / x0[0].numel()


def build_unet(run: Pretrain, source: Source) -> nn.Module:
    """A ``UNet2DModel`` for the images."""
    from diffusers import UNet2DModel

    if not isinstance(source, Images):
        raise ConfigError(f"objective: {run.objective} trains a UNet on images, and these are {source.event_shape}")
    channels, *size = source.event_shape
    require("num_class_embeds" not in run.unet, "unet.num_class_embeds: teachers are unconditional; leave it out")
    fixed = {"in_channels": channels, "out_channels": channels, "sample_size": size[0] if size[0] == size[1] else size}
    return cast(nn.Module, build(UNet2DModel, "unet", {**run.unet, **fixed}))


def multi_noise_model(run: Pretrain, source: Source) -> Model:
    """A score for every noise level of the annealed-Langevin scheduler: a UNet of images, or a ``ScoreNetwork``."""
    from diffusers import DDPMPipeline

    scheduler = noise_levels(run, source)
    kind, sigmas = scheduler.config.prediction_type, scheduler.sigmas.float()
    power = 2.0 if run.anneal_power is None else run.anneal_power
    free = run.score is not None
    network = free_network(run, source, sigmas.tolist()) if free else build_unet(run, source)

    def loss(network: nn.Module, x0: Tensor) -> Tensor:
        t = torch.randint(len(sigmas), (len(x0),), device=x0.device)

        def score(x: Tensor, sigma: Tensor) -> Tensor:
            output = network(x, t)
            return convert(output if free else output.sample, kind, "score", x, 1.0, sigma)

        losses = score_matching.multi_noise(score, x0, torch.randn_like(x0), sigmas.to(x0)[t], power)
        return losses.mean() / x0[0].numel()

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        if free:
            scheduler.save_pretrained(out / "scheduler")
            return save_free(network, out, cleanest(run, source, float(sigmas[0])))
        DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(out)
        return unet_report(network, kind, cleanest(run, source, float(sigmas[0]), FEW), float(sigmas[0]), out)

    return Model(network, loss, save)


def unet_report(unet: nn.Module, kind: str, x: Tensor, sigma: float, out: Path) -> dict[str, float]:
    """Write ``report.json`` of a UNet's score at events x (B,C,H,W) of the cleanest level, whose std is sigma."""
    place = next(unet.parameters()).device
    t = torch.zeros(len(x), dtype=torch.long, device=place)

    def score(y: Tensor) -> Tensor:
        return convert(unet(y, t).sample, kind, "score", y, 1.0, sigma)

    return save_report(score, x.to(place), score_matching.probes(x, "rademacher").to(place), out)


def noise_levels(run: Pretrain, source: Source) -> Any:
    """The scheduler that the noise options ask for; ``sigma_max: data`` and no levels are found from the data."""
    scheduler_class = plugins.load("dxmi.diffusers", "annealed_langevin")
    given = {key: value for key, value in run.noise.items() if (key, value) != ("sigma_max", "data")}
    if run.score is not None:
        require("prediction_type" not in given, "noise.prediction_type: score networks return scores; leave it out")
    given.setdefault("prediction_type", "epsilon" if run.score is None else "score")
    scheduler = build(scheduler_class, "noise", given)
    if given.get("sigmas") is not None or "sigma_max" in given:
        return scheduler
    found = scheduler_class.suggest(some(run, source), scheduler.config.sigma_min)
    return build(scheduler_class, "noise", {**found, **given})
