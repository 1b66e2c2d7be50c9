"""The few-step diffusion policy: a teacher's network on a short schedule, with a learned std per step (MATH 2)."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import ConsistencyModelPipeline, DDPMPipeline
from torch import Generator, Tensor, nn

from dxmi.api import About, ConfigError, CostToGo, Draw, GaussianSampler, Scheduler, Transition, randn

from .conditions import Labels, Text
from .solvers import solvers
from .spaces import Pixels
from .teachers import fingerprint, load_teacher


class DiffusionSampler(GaussianSampler):
    """A pretrained pipeline as a sampler of T steps, in its own space: pixels, or the latents of its autoencoder.

    The means are those of the scheduler (MATH 2.2); the stds start there and are learned, the last one fixed.

    Args:
        teacher: a diffusers pipeline, a folder or a hub id; what it is (its noise levels, what its network predicts,
            classes or text) is read from its own config
        scheduler: chooses the T nodes among the teacher's noise levels
        prompts: captions to draw samples at, in turn; for teachers that draw from text
        trust_remote_code: whether Python files that the teacher brings may run

    Raises:
        ConfigError: the teacher is missing or of a kind that is not supported, or the nodes do not fit it
    """

    pipeline = True

    def __init__(
        self,
        teacher: str,
        scheduler: Scheduler,
        prompts: list[str] | None = None,
        trust_remote_code: bool = False,
    ):
        super().__init__()
        self.teacher = load_teacher(teacher, trust_remote_code)
        self.source = teacher, trust_remote_code
        self.classes = getattr(self.teacher.conditions, "classes", None)
        self.prompts = prompts or []
        if self.prompts and not isinstance(self.teacher.conditions, Text):
            raise ConfigError("prompts: this teacher does not draw from text; leave them out")
        self.network = self.teacher.network
        self.schedule = scheduler.bind(self.teacher.levels)
        stds = self.schedule.stds.float()
        self.steps = len(stds)
        self.log_std = nn.Parameter(stds[:-1].log())
        self.last_log_std: Tensor
        self.timesteps: Tensor
        self.register_buffer("last_log_std", stds[-1:].log())
        self.register_buffer("timesteps", self.schedule.timesteps.clone())

    def train(self, mode: bool = True) -> Self:
        """The network stays as pipelines run it: without dropout, of labels for one."""
        super().train(mode)
        self.network.eval()
        return self

    @property
    def stds(self) -> Tensor:
        """Std of each step, (T,); at most that of the start, or an entropy weight lets it grow for ever (MATH 3)."""
        return torch.cat([self.log_std, self.last_log_std]).exp().clamp(max=self.schedule.init_noise_sigma)

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """Normal noise of std 1, as pipelines start from, or of the largest sigma of a variance-exploding teacher."""
        return self.schedule.init_noise_sigma * randn(shape, self.log_std, generator)

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """x_t (B,C,H,W), t (B,) -> the law of x_{t+1}; the cost to go is already in the weights."""
        output = self.teacher.call(self.network, x, self.timesteps[t], cond)
        mean, _ = self.schedule.transition(output, x, t)
        return Transition(mean, self.stds[t].reshape(-1, 1, 1, 1))

    def encode(self, batch: Tensor, about: About = None) -> tuple[Tensor, Tensor | None]:
        """Images (B,C,H,W) in [-1, 1], labels or captions -> x (B,*S), cond. Raises ConfigError, see the teacher."""
        return self.teacher.encode(batch, about)

    def encoder_fingerprint(self) -> str:
        """SHA-256 of the autoencoder and the text encoders: their settings and weights; "identity" without any."""
        parts = [*self.teacher.space.parts, *self.teacher.conditions.parts]
        return fingerprint(parts) if parts else super().encoder_fingerprint()

    def decode(self, x: Tensor) -> Tensor:
        """X (B,*S) -> images (B,C,H,W)."""
        return self.teacher.space.decode(x)

    def state_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C,H,W) of the teacher's states."""
        return self.teacher.shape

    def conditions(self, n: int, generator: Generator | None = None) -> Tensor | None:
        """Labels (n,) uniformly at random, or the prompts in turn, embedded; None for unconditional teachers."""
        return self.teacher.conditions.draw(n, self.prompts, generator, self.log_std.device)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError if images (C,H,W) are not what the teacher draws, or there is nothing to draw them at."""
        self.conditions(1)
        expected = self.teacher.space.image_shape(self.teacher.shape)
        if tuple(shape) != tuple(expected):
            fix = f"set data.size: {expected[-1]}" if shape[0] == expected[0] else "use other data or another teacher"
            raise ConfigError(f"data: images are {tuple(shape)}, the teacher draws {tuple(expected)} (C,H,W); {fix}")

    def save_pretrained(self, folder: Path) -> None:
        """The student as a pipeline's folder, which carries the source of its scheduler with the learned stds."""
        scheduler: Any = self.schedule.with_stds(self.stds.tolist())
        network: Any = self.network
        network.register_to_config(_name_or_path="")  # else the folder that the teacher was read from
        if isinstance(self.teacher.space, Pixels):
            scaled = scheduler.init_noise_sigma != 1 or isinstance(self.teacher.conditions, Labels)
            kind = ConsistencyModelPipeline if scaled else DDPMPipeline
            pipeline = kind(unet=network, scheduler=scheduler)
        else:
            parts = {**self.teacher.pipeline.components, self.teacher.network_name: network, "scheduler": scheduler}
            pipeline = type(self.teacher.pipeline)(**parts)
        pipeline.save_pretrained(folder)
        source = Path(inspect.getfile(type(scheduler)))
        shutil.copy(source, folder / "scheduler" / source.name)
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"] = [source.stem, type(scheduler).__name__]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    def rivals(self) -> dict[str, Draw]:
        """The unchanged teacher under the solvers that people run it with."""
        return solvers(load_teacher(*self.source), self.conditions, self.log_std.device)
