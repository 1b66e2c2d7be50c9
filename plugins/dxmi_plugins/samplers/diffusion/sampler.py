"""The few-step diffusion policy: a teacher's network on a short schedule, with a learned std per step (MATH 2)."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Generator, Tensor, nn

from dxmi.api import Annotations, ConfigError, CostToGo, Draw, GaussianSampler, Scheduler, Transition, randn
from dxmi.pipelines import keep_what_learns
from dxmi_plugins.samplers.diffusion.export import load_network, save_pipeline, stock_scheduler
from dxmi_plugins.samplers.diffusion.guidance import distance, guided
from dxmi_plugins.samplers.diffusion.noise import NoisedStates, NoiseLevels
from dxmi_plugins.samplers.diffusion.paths import landing, teacher_paths
from dxmi_plugins.samplers.diffusion.rivals import solvers
from dxmi_plugins.samplers.diffusion.scores import clean, reach
from dxmi_plugins.samplers.diffusion.student_network import (
    Lora,
    bare,
    check_student,
    make_network,
    merged,
    plain,
    save_adapters,
)
from dxmi_plugins.schedulers.few_step import FewStepScheduler
from dxmi_plugins.teachers.describe import describe
from dxmi_plugins.teachers.teacher import Teacher, load_teacher


class DiffusionSampler(NoisedStates, GaussianSampler):
    """A pretrained pipeline as a sampler of T steps, in its own space: pixels, or the latents of its autoencoder.

    The means are those of the scheduler (MATH 2.2); the stds start there and are learned, the last one fixed.

    Args:
        teacher: a diffusers pipeline, a folder or a hub id; what it is (its noise levels, what its network predicts,
            classes or text) is read from its own config
        scheduler: chooses the T nodes among the teacher's noise levels
        weights: pretrained, or random ones for a network of the same architecture
        lora: adapters that learn beside the frozen network; null lets all of it learn
        precision: of the frozen weights, the autoencoder's and text encoders' too; adapters and stds are float32. Small
            gradients may vanish in float16, not in bfloat16
        guidance: scale of the teacher's classifier-free guidance, which the student learns by ``game.imitate``, so that
            its own steps call the network once; 1 is none
        checkpointing: compute the network's activations again for the gradient, which saves their memory
        prompts: captions to draw samples at, in turn; for teachers that draw from text
        trust_remote_code: whether Python files that the teacher brings may run

    Raises:
        ConfigError: the teacher is missing or of a kind that is not supported, or the options do not fit it
    """

    pipeline = True
    per_sample = True
    null: Tensor

    def __init__(
        self,
        teacher: str,
        scheduler: Scheduler,
        weights: Literal["pretrained", "random"] = "pretrained",
        lora: Lora | None = None,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        guidance: float = 1.0,
        checkpointing: bool = False,
        prompts: list[str] | None = None,
        trust_remote_code: bool = False,
    ):
        super().__init__()
        check_student(weights, lora, precision)
        self.source = teacher, trust_remote_code, precision
        self.teacher = load_teacher(*self.source)
        self.classes = self.teacher.conditions.classes
        self.prompts: list[str] = prompts or []
        if self.prompts and not self.teacher.conditions.text:
            raise ConfigError("prompts", "this teacher does not draw from text", "leave them out")
        self.weights, self.lora, self.guidance = weights, lora, guidance
        self.untouched: Teacher | None = None
        self.must_imitate = guidance != 1
        self.rival_calls = 2 if self.must_imitate else 1
        if self.must_imitate:
            self.register_buffer("null", self.teacher.conditions.null(), persistent=False)
        self.network = make_network(self.teacher.network, weights == "random", lora, checkpointing)
        if lora is not None:
            keep_what_learns(self)
        self.schedule = scheduler.bind(self.teacher.levels)
        self.noise = NoiseLevels(self.teacher.levels, self.schedule)
        stds = self.schedule.stds.float()
        self.steps = len(stds)
        self.log_std = nn.Parameter(stds[:-1].log())
        self.plain_scheduler: Any = None  # of diffusers' own, in a copy that ``stock`` made
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

    def imitation(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Weighted distance of clean images to those of the (guided) teacher at x_t (B,C,H,W), a scalar."""
        teacher, timesteps = self.original(), self.timesteps[t]
        with torch.no_grad():
            wanted = teacher.call(teacher.network.to(x.device), x, timesteps, cond)
        return distance(self.schedule, self.teacher.call(self.network, x, timesteps, cond), wanted, x, t)

    def paths(self, n: int, steps: int, generator: Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """N paths of the (guided) teacher, x_0 to x_T (T+1,n,C,H,W), by DPM-Solver++(2M) in about ``steps`` steps."""
        cond, x = self.conditions(n, generator), self.initial((n, *self.teacher.shape), generator)
        return teacher_paths(self.original(), self.schedule, steps, x, cond), cond

    def path_loss(self, x: Tensor, t: Tensor, x_next: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mean distance of x0hat to the one whose step without noise lands on x_{t+1}, a scalar (MATH 3.8).

        Divided by how far x0hat moves with the network's output, where that is above 1.
        """
        here, there = ((self.noise.alphas[k], self.noise.sigmas[k]) for k in (t, t + 1))
        x0 = clean(self.schedule, self.teacher.call, self.network, (x, self.timesteps[t], *here), cond)
        return ((x0 - landing(x, x_next, here, there)) / reach(self.schedule, x, *here).clamp_min(1)).abs().mean()

    def score_network(self) -> nn.Module:
        """A copy of the untouched teacher's network, without adapters, in float32; all of it learns."""
        copied = bare(self.original().network)
        if self.network.is_gradient_checkpointing:
            copied.enable_gradient_checkpointing()
        return copied  # type: ignore[no-any-return]

    def denoised(
        self, x: Tensor, level: Tensor, cond: Tensor | None = None, network: nn.Module | None = None
    ) -> Tensor:
        """The clean data (B,C,H,W) in x (B,C,H,W) at ``level`` (B,), by the (guided) teacher, without gradients.

        Or by ``network``, one as ``score_network`` gives, which is not guided.
        """
        seen = self.noise.seen(x, level)
        if network is not None:
            return clean(self.schedule, self.teacher.call, network, seen, cond)
        teacher = self.original()
        with torch.no_grad():
            return clean(self.schedule, teacher.call, teacher.network.to(x.device), seen, cond)

    def original(self) -> Teacher:
        """The teacher as it was, with its guidance: without the adapters, or loaded again where all of it learns."""
        if self.untouched is None:
            apart = self.lora is not None or self.weights == "random"
            teacher = self.teacher if apart else load_teacher(*self.source, like=self.teacher)
            if self.lora is None:
                teacher.network.requires_grad_(False)
            call = teacher.call if self.lora is None else plain(teacher.call)
            call = guided(call, self.guidance, self.null) if self.must_imitate else call
            self.untouched = replace(teacher, call=call)
        return self.untouched

    def encode(self, batch: Tensor, about: Annotations = None) -> tuple[Tensor, Tensor | None]:
        """Images (B,C,H,W) in [-1, 1], labels or captions -> x (B,*S), cond. Raises ConfigError, see the teacher."""
        return self.teacher.encode(batch, about)

    def encoder_fingerprint(self) -> str:
        """SHA-256 of autoencoder, text encoders and tokenizers: settings, weights, dtypes; "identity" without any."""
        return self.teacher.fingerprint() or super().encoder_fingerprint()

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
        self.teacher.check(shape)

    def save_pretrained(self, folder: Path) -> None:
        """The student as a pipeline's folder: with the source of its scheduler, or after ``stock`` without code."""
        scheduler = self.plain_scheduler or self.schedule.with_stds(self.stds.tolist())
        rounded = self.source[2] != "float32"  # then its parts would not work beside a network that is not
        teacher = load_teacher(*self.source[:2]) if rounded else self.teacher
        save_pipeline(teacher, merged(self.network, teacher.network if rounded else None), scheduler, folder)
        if self.lora is not None and hasattr(self.teacher.pipeline, "save_lora_weights"):
            self.save_lora(folder / "lora")

    def save_lora(self, folder: Path) -> None:
        """The adapters alone, for the teacher's ``load_lora_weights``. Raises ConfigError if it has no such method."""
        save_adapters(self.teacher.pipeline, self.teacher.network_name, self.network, folder)

    def load_pretrained(self, folder: Path) -> None:
        """Take the network and the stds from a folder that ``save_pretrained`` wrote, before any ``stock``."""
        self.network = load_network(self.network, folder / self.teacher.network_name).to(self.log_std.device)
        self.lora = None  # the adapters are in its weights
        self._set_stds(FewStepScheduler.from_pretrained(folder / "scheduler").stds)

    def stock(self) -> Self:
        """A copy with a scheduler of diffusers' own, so with the stds of MATH (2.1). Raises ConfigError: none fits."""
        scheduler, stds, options = stock_scheduler(self.teacher, self.schedule)
        plain_copy = copy.deepcopy(self)
        plain_copy.plain_scheduler, plain_copy.call_options = scheduler, options
        plain_copy._set_stds(stds)
        return plain_copy

    @classmethod
    def describe(cls, source: str, trust_remote_code: bool = False) -> dict[str, Any]:
        """What a pipeline is, and a run that would fine-tune it. Raises ConfigError, see the teacher."""
        return describe(source, trust_remote_code)

    def _set_stds(self, stds: Tensor) -> None:
        with torch.no_grad():
            self.log_std.copy_(stds[:-1].log())
            self.last_log_std.copy_(stds[-1:].log())

    def rivals(self) -> dict[str, Draw]:
        """The unchanged teacher under the solvers that people run it with."""
        return solvers(self.original(), self.conditions, self.log_std.device)
