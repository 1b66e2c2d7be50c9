"""What ``dxmi pretrain`` can train with many noise levels: DDPM teachers, and score models for annealed Langevin."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import dxmi.pretraining.score_losses as score_losses
from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config import PretrainConfig, plugins
from dxmi.data import Batch, Images, Source, Stream
from dxmi.pretraining.model import Model, build, cleanest, free_network, save_free, save_report, some
from dxmi.pretraining.scores import convert

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


FEW = 16  # images for a UNet's asymmetry: passes back through a pass back keep its activations several times


def ddpm_model(run: PretrainConfig, source: Source) -> Model:
    """A UNet that denoises at the levels of a ``DDPMScheduler`` (TOOLBOX row 26; Ho et al. 2020).

    Raises:
        ConfigError: the scheduler or the UNet does not take its options, or the data are no images
    """
    from diffusers import DDPMScheduler

    scheduler = build(DDPMScheduler, "noise", run.noise)
    kind = scheduler.config.prediction_type
    require(kind in PREDICTION_TYPES, "noise.prediction_type", f"'{kind}' is none of {', '.join(PREDICTION_TYPES)}")

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        x0 = batch.items
        noise, t = torch.randn_like(x0), torch.randint(len(scheduler), (len(x0),), device=x0.device)
        return ddpm_loss(network, scheduler, x0, noise, t, *labels(batch))

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        save_unet(network, scheduler, out)
        return {}

    return Model(build_unet(run, source), loss, save)


def labels(batch: Batch) -> tuple[Tensor, ...]:
    """What a network takes after x and t: the labels (B,), or nothing."""
    return (batch.about,) if isinstance(batch.about, Tensor) else ()


def save_unet(network: nn.Module, scheduler: Any, out: Path) -> None:
    """The pipeline of diffusers that draws from a UNet: with labels the one that passes them, else ``DDPMPipeline``."""
    from diffusers import ConsistencyModelPipeline, DDPMPipeline

    labelled = cast(Any, network).config.num_class_embeds is not None
    (ConsistencyModelPipeline if labelled else DDPMPipeline)(unet=network, scheduler=scheduler).save_pretrained(out)


def ddpm_loss(network: nn.Module, scheduler: Any, x0: Tensor, noise: Tensor, t: Tensor, *classes: Tensor) -> Tensor:
    """``score_losses.ddpm`` of a UNet: x0, noise (B,C,H,W), timesteps t and classes (B,) -> scalar per pixel."""
    kept, kind = scheduler.alphas_cumprod.to(x0)[t], scheduler.config.prediction_type

    def output(x: Tensor) -> Tensor:
        return network(x, t, *classes).sample  # type: ignore[no-any-return]

    losses = score_losses.ddpm(output, kind, x0, noise, kept.sqrt(), (1 - kept).sqrt())
    return losses.mean() / x0[0].numel()


def build_unet(run: PretrainConfig, source: Source) -> nn.Module:
    """A ``UNet2DModel`` for the images, and for their classes if ``data.label`` tells them.

    Raises:
        ConfigError: the data are no images or do not tell their classes, or ``unet`` has an option that there is not
    """
    from diffusers import UNet2DModel

    if not isinstance(source, Images | Stream):
        raise ConfigError("objective", f"{run.objective} trains a UNet on images, and these are {source.event_shape}")
    channels, *size = source.event_shape
    require("num_class_embeds" not in run.unet, "unet.num_class_embeds", "it is read from data.label", "leave it out")
    sample_size = size[0] if size[0] == size[1] else size
    fixed = {"in_channels": channels, "out_channels": channels, "num_class_embeds": source.classes}
    if run.data.label is not None and source.classes is None:
        raise ConfigError(
            "data.label", "this stream does not tell how many classes there are", "leave out data.streaming"
        )
    return cast(nn.Module, build(UNet2DModel, "unet", {**run.unet, **fixed, "sample_size": sample_size}))


def multi_noise_model(run: PretrainConfig, source: Source) -> Model:
    """A score for every noise level of the annealed-Langevin scheduler: a UNet of images, or a ``ScoreNetwork``.

    Its loss weighs levels by a power of sigma (TOOLBOX row 20; Song and Ermon 2019).

    Raises:
        ConfigError: the scheduler or the network does not take its options
    """
    scheduler = noise_levels(run, source)
    kind, sigmas = scheduler.config.prediction_type, scheduler.sigmas.float()
    power = 2.0 if run.anneal_power is None else run.anneal_power
    free = run.score is not None
    network = free_network(run, source, sigmas.tolist()) if free else build_unet(run, source)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        x0 = batch.items
        t = torch.randint(len(sigmas), (len(x0),), device=x0.device)

        def score(x: Tensor, sigma: Tensor) -> Tensor:
            output = network(x, t, *labels(batch))
            return convert(output if free else output.sample, kind, "score", x, 1.0, sigma)

        losses = score_losses.multi_noise(score, x0, torch.randn_like(x0), sigmas.to(x0)[t], power)
        return losses.mean() / x0[0].numel()

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        if free:
            scheduler.save_pretrained(out / "scheduler")
            return save_free(network, out, cleanest(run, source, float(sigmas[0])))
        save_unet(network, scheduler, out)
        return unet_report(network, kind, source.batch(0, FEW, run.seed), float(sigmas[0]), out)

    return Model(network, loss, save)


def unet_report(unet: nn.Module, kind: str, batch: Batch, sigma: float, out: Path) -> dict[str, float]:
    """Write ``report.json`` of a UNet's score at images (B,C,H,W) with the cleanest level's noise, of std sigma."""
    place = next(unet.parameters()).device
    classes = tuple(part.to(place) for part in labels(batch))
    x = (batch.items + sigma * torch.randn_like(batch.items)).to(place)
    t = torch.zeros(len(x), dtype=torch.long, device=place)

    def score(y: Tensor) -> Tensor:
        return convert(unet(y, t, *classes).sample, kind, "score", y, 1.0, sigma)

    return save_report(score, x, score_losses.probes(x, "rademacher"), out)


def noise_levels(run: PretrainConfig, source: Source) -> Any:
    """The scheduler that the noise options ask for; ``sigma_max: data`` and no levels are found from the data.

    Raises:
        ConfigError: it does not take them
    """
    scheduler_class = plugins.load("dxmi.diffusers", "annealed_langevin")
    given = {key: value for key, value in run.noise.items() if (key, value) != ("sigma_max", "data")}
    if run.score is not None:
        require("prediction_type" not in given, "noise.prediction_type", "score networks return scores", "leave it out")
    given.setdefault("prediction_type", "epsilon" if run.score is None else "score")
    scheduler = build(scheduler_class, "noise", given)
    if given.get("sigmas") is not None or "sigma_max" in given:
        return scheduler
    levels = scheduler_class.suggest(some(run, source), scheduler.config.sigma_min)
    return build(scheduler_class, "noise", {**levels, **given})
