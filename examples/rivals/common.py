"""What all rivals share: the student, the data, a clock of CPU-seconds, averaged weights, and steps of Adam."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from dxmi.api import Energy, Sampler
from dxmi.api.errors import require
from dxmi.api.noise import per_row
from dxmi.chains import walk
from dxmi.config import DataConfig, build_plugin
from dxmi.data import draw_batch, load_data
from dxmi.game.players import averaged

EXAMPLES = Path(__file__).parents[1]


@dataclass(frozen=True)
class Task:
    """What every rival is given.

    Args:
        steps: T, how often the student's network is called for a sample
        seconds: CPU-seconds, with all that a rival prepares
        seed: of weights, batches and noise, and of the samples that are measured
        samples: how many are measured
        teacher: folder of a diffusers pipeline
        data: images, as ``dxmi train`` reads them
        extractor: of the features that samples are measured by
        batch: images in a batch
        ema: decay of the averaged weights, which are the product

    Raises:
        ConfigError: a number is not positive
    """

    steps: int = 4
    seconds: float = 250.0
    seed: int = 0
    samples: int = 20_000
    teacher: str = str(EXAMPLES / "teachers" / "digits")
    data: str = str(EXAMPLES / "data" / "digits.parquet")
    extractor: str = str(EXAMPLES / "extractors" / "digits.safetensors")
    batch: int = 64
    ema: float = 0.999

    def __post_init__(self) -> None:
        for key in ("steps", "seconds", "samples", "batch"):
            require(getattr(self, key) > 0, key, f"{getattr(self, key)} is not positive")


class Match:
    """One rival's student, data and clock, which starts here.

    Args:
        task: what is asked for
        scheduler: options of the student's scheduler, beside its nodes
    """

    def __init__(self, task: Task, **scheduler: Any):
        self.task, self.start, self.done, self.drawn = task, time.process_time(), 0, 0
        set_seed(task.seed)
        nodes = {"name": "ancestral", "steps": task.steps, "nodes": "midpoints", **scheduler}
        self.student: Any = build_plugin(Sampler, {"name": "diffusion", "teacher": task.teacher, "scheduler": nodes})
        self.config, self.accelerator = DataConfig(path=task.data, batch_size=task.batch), Accelerator(cpu=True)
        self.source = load_data(self.config)
        self.average = averaged(self.student, task.ema)
        self.shape = (task.batch, *self.student.teacher.shape)

    @property
    def share(self) -> float:
        """How much of the time is used, from 0 on."""
        return (time.process_time() - self.start) / self.task.seconds

    def rounds(self) -> Iterator[int]:
        """0, 1, ... until the time is up; after each round the average follows the student."""
        while self.share < 1:
            yield self.done
            self.average.update_parameters(self.student)
            self.done += 1

    def batch(self) -> Tensor:
        """The next images, in the teacher's space (B,*S)."""
        images = draw_batch(self.source, self.config, self.drawn, self.task.seed, self.accelerator)
        self.drawn += 1
        return self.student.encode(*images)[0]

    def state(self, k: int) -> Tensor:
        """States (B,*S) at node k of the student's own chain, without gradients."""
        return next(islice(walk(self.student, no_cost, self.shape), k, None))

    def levels(self) -> Tensor:
        """Noise levels (B,), uniform over the teacher's timesteps but for the first and the last fiftieth."""
        known = self.student.noise.known[1:]
        return known[torch.randint(len(known) // 50, len(known) * 49 // 50, (self.task.batch,))]

    def noised(self, x: Tensor, level: Tensor) -> Tensor:
        """Clean x (B,*S) with the noise of ``level`` (B,)."""
        alpha, sigma = self.student.at_level(level)
        return per_row(alpha, x) * x + per_row(sigma, x) * torch.randn_like(x)

    def critic(self, **options: Any) -> Energy:
        """A head on the teacher's encoder, all of which learns: energies (B,) of states (B,*S), low for real ones."""
        named = {"name": "teacher_features", "teacher": self.task.teacher, "tune": True, "heads": "pool"}
        energy: Any = build_plugin(Energy, named | options)
        energy(torch.zeros(2, *self.shape[1:]), torch.zeros(2))  # the head takes its sizes from what it sees first
        return energy


def no_cost(x: Tensor, t: Tensor) -> Tensor:
    """The cost to go (B,) where a student's steps use none."""
    return x.new_zeros(len(x))


def falling(share: float) -> float:
    """Half a cosine, from 1 to 0."""
    return (1 + math.cos(math.pi * share)) / 2


def cycle(share: float) -> float:
    """A rise over three tenths of the time, then half a cosine to 0 (Smith 2018)."""
    return falling(1 - share / 0.3) if share < 0.3 else falling((share - 0.3) / 0.7)


class Learner:
    """A network under Adam with clipped gradients; its rate depends on the share of the time that is used."""

    def __init__(
        self,
        match: Match,
        network: nn.Module,
        rate: float,
        betas: tuple[float, float] = (0.0, 0.99),
        shape: Callable[[float], float] = falling,
    ):
        self.match, self.rate, self.shape = match, rate, shape
        self.learned = [p for p in network.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(self.learned, betas=betas)

    def descend(self, loss: Tensor) -> None:
        """One step down a scalar. Raises FloatingPointError if it is not finite."""
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is not finite in round {self.match.done}; lower the rate")
        for group in self.adam.param_groups:
            group["lr"] = self.rate * self.shape(min(1.0, self.match.share))
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.adam.step()
