"""The few-step diffusion policy: a teacher's network on a short schedule, with a learned std per step (MATH 2)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDPMPipeline
from torch import Generator, Tensor, nn

from dxmi.api import ConfigError, CostToGo, Draw, GaussianSampler, Scheduler, Transition, randn

from .teachers import SOLVERS, load_teacher, solver


class DiffusionSampler(GaussianSampler):
    """A pretrained pixel-space pipeline as a sampler of T steps.

    The means are those of the scheduler (MATH 2.2); the stds start there and are learned, the last one fixed.

    Args:
        teacher: a diffusers pipeline with an unconditional ``UNet2DModel``: a folder or a hub id
        scheduler: chooses the T nodes among the teacher's noise levels

    Raises:
        ConfigError: the teacher is missing or of a kind that is not supported, or the nodes do not fit it
    """

    pipeline = True

    def __init__(self, teacher: str, scheduler: Scheduler):
        super().__init__()
        loaded = load_teacher(teacher)
        self.teacher = teacher
        self.unet = loaded.unet.eval()
        self.scheduler = scheduler.bind(loaded.alphas, loaded.sigmas, loaded.prediction_type)
        stds = self.scheduler.stds.float()
        self.steps = len(stds)
        self.log_std = nn.Parameter(stds[:-1].log())
        self.last_log_std: Tensor
        self.timesteps: Tensor
        self.register_buffer("last_log_std", stds[-1:].log())
        self.register_buffer("timesteps", self.scheduler.timesteps.clone())

    @property
    def stds(self) -> Tensor:
        """Std of each step, (T,); at most that of pure noise, or an entropy weight lets it grow for ever (MATH 3)."""
        return torch.cat([self.log_std, self.last_log_std]).exp().clamp(max=1)

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """Standard normal noise, as every variance-preserving pipeline starts from."""
        return randn(shape, self.log_std, generator)

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """x_t (B,C,H,W), t (B,) -> the law of x_{t+1}; the cost to go is already in the weights."""
        output = self.unet(x, self.timesteps[t]).sample
        mean, _ = self.scheduler.transition(output, x, t)
        return Transition(mean, self.stds[t].reshape(-1, 1, 1, 1))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError if images (C,H,W) are not what the teacher draws."""
        size = self.unet.config.sample_size
        expected = (self.unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
        if tuple(shape) != tuple(expected):
            fix = f"set data.size: {expected[-1]}" if shape[0] == expected[0] else "use other data or another teacher"
            raise ConfigError(f"data: images are {tuple(shape)}, the teacher draws {tuple(expected)} (C,H,W); {fix}")

    def save_pretrained(self, folder: Path) -> None:
        """The student as a ``DDPMPipeline`` folder: the network and a scheduler that carries the learned stds."""
        scheduler = self.scheduler.with_stds(self.stds.tolist())
        self.unet.register_to_config(_name_or_path="")  # else the folder that the teacher was read from
        DDPMPipeline(unet=self.unet, scheduler=scheduler).save_pretrained(folder)

    def rivals(self) -> dict[str, Draw]:
        """The unchanged teacher under DDIM, DPM-Solver++ and UniPC."""
        teacher = load_teacher(self.teacher)
        return {name: solver(teacher, kind, self.log_std.device) for name, kind in SOLVERS.items()}
