"""The keys of ``dxmi pretrain``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from dxmi.api import Energy
from dxmi.api.errors import require
from dxmi.config.data import DataConfig

Objective = Literal[
    "ddpm", "multi_noise", "denoising", "implicit", "hutchinson", "sliced", "explicit", "reconstruction"
]


@dataclass(kw_only=True)
class PretrainConfig:
    """Every key of ``dxmi pretrain``'s YAML file.

    They stand at the top of the file.

    Args:
        data: what to learn from: images, vectors or draws of a known density
        objective: the loss. ddpm and multi_noise learn the score at many noise levels: ddpm of a UNet that becomes a
            teacher, multi_noise of a UNet, or ``score``, for annealed Langevin. Five learn one score, of ``energy`` or
            ``score``: denoising that of the data with noise, implicit, hutchinson and sliced that of the data as they
            are, which must have a density; explicit the known one of ``data.density``. reconstruction makes an
            ``energy`` that is an autoencoder, as sphere_autoencoder, give the data back
        seed: of weights, noise and batches
        steps: optimiser steps
        unet: options of diffusers' UNet2DModel; channels and size are read from the images, the number of classes from
            ``data.label``, with which it learns to draw each class
        energy: plugin, a network whose negative gradient is the score, or an autoencoder
        score: options of a free score network (width, depth): a multilayer perceptron, no gradient of anything
        noise: with ddpm options of diffusers' DDPMScheduler (num_train_timesteps, beta_schedule, prediction_type, ...),
            with multi_noise of the AnnealedLangevinScheduler (sigmas, sigma_max, sigma_min, num_train_timesteps,
            inner, ...); there ``sigma_max: data``, the default, takes the largest distance of two events, and without
            num_train_timesteps the levels overlap as Song and Ermon 2020 advise
        sigma: std of the noise of denoising
        anneal_power: multi_noise weighs the denoising loss of a level by sigma to that power; null means 2, Song and
            Ermon's, with which all levels count alike, and with 0 the cleanest ones outweigh the others
        probes: what hutchinson and sliced project on; null means rademacher, which varies less
        lr: peak learning rate of AdamW, reached after ``warmup`` steps and then lowered along a cosine to 0
        warmup: steps of the rise
        clip: largest gradient norm of the loss per entry of an event
        ema: decay of the moving average of the weights, which is what gets saved

    Raises:
        ConfigError: a value is out of range, or the objective does not use a key
    """

    data: DataConfig
    objective: Objective = "ddpm"
    seed: int = 0
    steps: int = 10_000
    unet: dict[str, Any] = field(default_factory=dict)
    energy: Energy | None = None
    score: dict[str, Any] | None = None
    noise: dict[str, Any] = field(default_factory=dict)
    sigma: float | None = None
    anneal_power: float | None = None
    probes: Literal["gaussian", "rademacher"] | None = None
    lr: float = 2e-4
    warmup: int = 500
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", f"{self.steps} train nothing", "give 1 or more")
        for key in ("lr", "clip"):
            require(getattr(self, key) > 0, key, f"{getattr(self, key)} is not positive")
        require(self.warmup >= 0, "warmup", f"{self.warmup} is negative")
        require(0 <= self.ema < 1, "ema", f"{self.ema} is not in [0, 1)")
        self._check_objective()
        self._check_network()

    def _check_objective(self) -> None:
        kind = self.objective
        if kind == "denoising":
            require(self.sigma is not None and self.sigma > 0, "sigma", f"{self.sigma} is no std of noise", "give one")
        else:
            require(self.sigma is None, "sigma", f"objective {kind} does not use it", "leave it out")
        require(
            self.probes is None or kind in ("hutchinson", "sliced"),
            "probes",
            f"objective {kind} uses none",
            "leave it out",
        )
        require(
            self.anneal_power is None or kind == "multi_noise",
            "anneal_power",
            f"objective {kind} does not use it",
            "leave it out",
        )
        require(
            self.anneal_power is None or math.isfinite(self.anneal_power),
            "anneal_power",
            f"{self.anneal_power} is not finite",
        )
        require(
            not self.noise or kind in ("ddpm", "multi_noise"),
            "noise",
            f"objective {kind} has no noise levels",
            "leave it out",
        )

    def _check_network(self) -> None:
        kind = self.objective
        levels = kind in ("ddpm", "multi_noise")
        require(not levels or self.energy is None, "energy", f"objective {kind} has many noise levels", "leave it out")
        require(kind != "ddpm" or self.score is None, "score", "objective ddpm trains a UNet", "leave it out")
        if kind == "reconstruction":
            require(self.score is None, "score", "objective reconstruction trains an energy", "leave it out")
            require(self.energy is not None, "energy", "name an autoencoder, as sphere_autoencoder")
        require(
            levels or (self.energy is None) != (self.score is None),
            "objective",
            f"{kind} trains either an energy or a score",
            "give one of them",
        )
        unet = levels and self.score is None
        require(not self.unet or unet, "unet", "no UNet is trained here", "leave it out")
        require(self.data.label is None or unet, "data.label", "only UNets learn classes here", "leave it out")
        self.data.refuse("caption", "cache", what="nothing here reads texts or encodes")
