"""The teacher: the loss, network and file of ``dxmi pretrain``, in a loop that ends by the clock.

``dxmi pretrain`` counts steps and starts from random weights. Here the learning rate falls with the time that is
left, batches come from the device's memory, the network is compiled and runs in bfloat16, and may start as another
teacher.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from budget import OutOfTime, alarm
from job import ROOT, Job
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.api import ConfigError
from dxmi.api.errors import first_line
from dxmi.config import PretrainConfig, check_given
from dxmi.data import Batch, scaled
from dxmi.pipelines import PipelineDraw, load_pipeline
from dxmi.pretraining.noise_levels import ddpm_model

CONFIG = ROOT / "configs" / "cifar10_gpu_teacher.yaml"
SHARE = 0.8  # of the part's time that is for training; the rest is for measuring
COMPILING = 0.5  # share of that which compiling may take
EVERY = 50  # steps between two points of the curve
UNIPC = "UniPCMultistepScheduler"


def teacher_part(job: Job) -> dict[str, Any]:
    """Train, save in half precision, measure under UniPC at its most steps."""
    overrides = {"data.path": job.data, "data.column": job.column, **job.sizes.teacher}
    checked = check_given(PretrainConfig, CONFIG, overrides)
    torch.manual_seed(checked.values.seed)
    run = checked.build()
    model = ddpm_model(run, job.images)
    if job.teacher is not None:
        start_from(model.network, run.noise, job.teacher)
    learner = Learner(job, run, model.network.to(job.device), model.loss)
    cut = None
    try:
        learner.learn(SHARE * job.budget.left("teacher"))
    except OutOfTime as error:  # what was learned is kept
        cut = str(error)
    job.curves["teacher"] = learner.curve
    model.save(learner.average.module.eval().half(), job.out / "teacher", checked.resolved)
    started, job.teacher = job.teacher, job.out / "teacher"
    if cut is None:
        job.rows.append(job.judge.row(solver(job, UNIPC), "unipc", max(job.sizes.unipc)))
    return {
        "error": cut,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "started_from": None if started is None else started.name,
        "steps": learner.steps,
        "images": learner.steps * run.data.batch_size,
        "training_seconds": round(learner.seconds, 1),
        "compiled": learner.compiled,
        "curve": learner.curve,
    }


def solver(job: Job, scheduler: str) -> PipelineDraw:
    """The teacher under a scheduler of diffusers, to be drawn from."""
    return PipelineDraw(load_pipeline(str(job.needs_teacher())), job.device, scheduler=scheduler, name="the teacher")


def start_from(network: nn.Module, noise: dict[str, Any], folder: Path) -> None:
    """Take the weights of a teacher with the same network and noise.

    Raises:
        ConfigError: it has others, or there is none
    """
    pipeline = load_pipeline(str(folder))
    for key, value in noise.items():
        own = pipeline.scheduler.config.get(key)
        if own != value:
            raise ConfigError("teacher", f"its {key} is {own}, that of {CONFIG.name} {value}", "give another folder")
    try:
        network.load_state_dict(pipeline.unet.float().state_dict())
    except RuntimeError as error:
        why = f"its network is not that of {CONFIG.name}"
        raise ConfigError("teacher", why, "give a folder that this script left") from error


class Learner:
    """A network that learns to denoise, with its average.

    Args:
        job: where it runs and what is asked for
        run: batches and rates
        network: on the job's device
        loss: of the network and a batch
    """

    def __init__(self, job: Job, run: PretrainConfig, network: nn.Module, loss: Callable[[nn.Module, Batch], Tensor]):
        self.job, self.run, self.network, self.loss = job, run, network, loss
        self.called: Any = torch.compile(network, dynamic=False) if job.compiled else network
        self.compiled: bool | str = job.compiled
        self.pixels = job.images.pixels.to(job.device)
        self.average = AveragedModel(network, multi_avg_fn=self.follow)
        fused = job.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=run.lr, fused=fused)
        self.steps, self.seconds, self.curve = 0, 0.0, list[dict[str, float]]()

    def learn(self, seconds: float) -> None:
        """Train for so long.

        Raises:
            FloatingPointError: the loss is not finite
        """
        begin = self.job.synchronised()
        self.first_step(COMPILING * seconds)
        start, losses, most = self.job.synchronised(), list[Tensor](), self.job.sizes.steps or math.inf
        whole = max(seconds - (start - begin), 1e-3)  # compiling, which the first step does, is no time of the schedule
        while (now := self.job.budget.clock() - start) < whole and self.steps < most:
            losses.append(self.step(now / whole))
            if self.steps % EVERY == 0:
                self.log(self.job.synchronised() - start, losses)
        self.seconds = self.job.synchronised() - start
        self.log(self.seconds, losses)

    def first_step(self, seconds: float) -> None:
        """A step that finds out whether the network can be compiled here, and in that time."""
        if not self.job.compiled:
            self.step(0.0)
            return
        try:
            with alarm(seconds):
                self.step(0.0)
        except (Exception, OutOfTime) as error:  # compilers fail in many ways, and training goes on without
            self.called, self.compiled = self.network, f"no: {type(error).__name__}: {first_line(error)}"[:300]
            self.step(0.0)

    def step(self, share: float) -> Tensor:
        """One step of the optimiser after that share of the time; its loss, on the device."""
        risen = min(1.0, (self.steps + 1) / max(1, self.run.warmup))
        rate = self.run.lr * risen * (1 + math.cos(math.pi * share)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.job.device.type, torch.bfloat16):
            loss = self.loss(self.called, self.batch())
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.network.parameters(), self.run.clip)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.steps += 1
        return loss.detach()

    def follow(self, averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        """One step of the average, whose decay rises to its value; the ``count`` would have to be waited for."""
        decay = min(self.run.ema, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(averages, current, count)

    def batch(self) -> Batch:
        """Images at random, mirrored at random."""
        size, device = self.run.data.batch_size, self.job.device
        x = scaled(self.pixels[torch.randint(len(self.pixels), (size,), device=device)])
        if self.run.data.flip:
            x = torch.where(torch.rand(size, 1, 1, 1, device=device) < 0.5, x.flip(-1), x)
        return Batch(x)

    def log(self, seconds: float, losses: list[Tensor]) -> None:
        """A point of the curve: the mean of the losses since the last."""
        if not losses:
            return
        mean = torch.stack(losses).float().mean().item()
        losses.clear()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is not finite after {self.steps} steps")
        self.curve.append({"seconds": round(seconds, 2), "step": self.steps, "loss": round(mean, 5)})
