"""Diffusers pipelines as draws, each sample from noise of its own, under any scheduler for their noise levels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor

from dxmi.api import ConfigError, turns
from dxmi.api.errors import first_line, require
from dxmi.api.noise import random_labels
from dxmi.pipelines.calls import call_of_pipeline, network_of
from dxmi.pipelines.other_schedulers import ERRORS, for_a_draw, other_scheduler

LEARNED = ("learned", "learned_range")


class Trial(NamedTuple):
    """What one image tells."""

    nfe: float
    """how often the network sees it, alone or beside a guided copy"""
    shape: tuple[int, ...]
    """(C,H,W)"""


class PipelineDraw:
    """A pipeline as a ``Draw`` of images (n,C,H,W) in [-1, 1], at labels at random or prompts in turn.

    A call leaves the pipeline on ``device``, and otherwise as it was.

    Args:
        pipeline: any of diffusers'
        device: where it runs
        prompts: what a pipeline that draws from text is given
        scheduler: the name of another scheduler of diffusers, made from the config of the pipeline's; null keeps that
        name: what messages about prompts call the pipeline; null is the name of its class

    Raises:
        ConfigError: it draws no images, prompts are missing or useless, or the scheduler is not known, not installed
            or not for these noise levels
    """

    def __init__(
        self,
        pipeline: Any,
        device: torch.device,
        prompts: Sequence[str] = (),
        scheduler: str | None = None,
        name: str | None = None,
    ):
        self.pipeline, self.prompts, self.device = pipeline, list(prompts), device
        self.kind, self.network = type(pipeline).__name__, network_of(pipeline)
        takes = inspect.signature(pipeline.__call__).parameters.keys()
        self.expect(takes >= {"num_inference_steps", "output_type"} and hasattr(pipeline, "scheduler"))
        self.usage, called = call_of_pipeline(pipeline), name or self.kind
        require(bool(prompts) or not self.usage.captions, "prompts", f"{called} draws from text", "give one")
        require(not prompts or self.usage.captions, "prompts", f"{called} does not draw from text", "leave it out")
        self.student = pipeline.scheduler.config.get("table")
        self.scheduler = pipeline.scheduler if scheduler is None else other_scheduler(pipeline.scheduler, scheduler)
        # DDPMPipeline and its like scale no input and hand every scheduler a generator: they run their own ones alone
        self.alone = scheduler is not None and self.usage.batches and not hasattr(pipeline, "vqvae")
        if scheduler is not None and self.kind == "DiTPipeline":
            sigma = float(self.scheduler.init_noise_sigma)
            needs = f"{scheduler} needs one of std {sigma:.3g}; take another"
            require(sigma == 1, "schedulers", f"{self.kind} scales no start, and {needs}")
        self.per_sample = not hasattr(self.scheduler, "noise_sampler")  # which takes torch's own noise

    def __call__(self, n: int, steps: int, generator: Any) -> Tensor:
        """N images from ``steps`` steps; a list of generators has one for each.

        Raises:
            ConfigError: the scheduler cannot make that many steps, or no images come
            RuntimeError: the pipeline itself fails
        """
        require(steps >= 1, "steps", f"{steps} is not positive")  # some schedulers take 0 and leave the noise as it is
        own = len(self.student) if self.student else steps
        require(steps == own, "steps", f"this student was trained for {own}, and has no others", "leave it out")
        self.pipeline.to(self.device)
        scheduler = for_a_draw(self.scheduler, steps, generator)
        if isinstance(generator, Generator) and not self.per_sample:
            torch.manual_seed(generator.initial_seed())
        labels = self.labels(n, generator)
        try:
            with at_work(self.pipeline, scheduler):
                draw = self.solve if self.alone else self.call
                return draw(scheduler, n, steps, generator, labels)
        except ConfigError:
            raise
        except ERRORS as error:
            raise RuntimeError(f"{self.kind}: {first_line(error)}") from error

    def expect(self, images: bool) -> None:
        """Raise ConfigError unless there are images."""
        require(images, self.kind, "draws no images in steps", "take a pipeline that does")

    def usual_steps(self) -> int:
        """A student's; else what the pipeline asks its scheduler for, or all levels of a scheduler that has fewer.

        Raises:
            ConfigError: it asks for none, or for one, as ``ConsistencyModelPipeline`` does whatever its network can
        """
        if self.student:
            return len(self.student)
        asked: Any = inspect.signature(self.pipeline.__call__).parameters["num_inference_steps"].default
        usual = isinstance(asked, int) and asked > 1
        require(usual, "steps", f"{self.kind} has no usual number of them", "give one, such as 50")
        levels = self.pipeline.scheduler.config.get("num_train_timesteps")
        return int(asked if levels is None else min(asked, levels))

    def labels(self, n: int, generator: Any) -> Tensor | None:
        """The labels (n,) that it draws at from this noise; None where it takes none."""
        return random_labels(n, self.usage.classes, generator) if self.usage.classes else None

    def texts(self, n: int, generator: Any) -> list[str]:
        """The prompts that these samples are drawn at, in turn, as a student's are; none without any."""
        return [self.prompts[i % len(self.prompts)] for i in turns(n, generator).tolist()] if self.prompts else []

    def call(self, scheduler: Any, n: int, steps: int, generator: Any, labels: Tensor | None) -> Tensor:
        """The images (n,C,H,W) of the pipeline's own loop."""
        if hasattr(self.pipeline, "vqvae"):  # LDMPipeline scales its start before it sets the steps
            scheduler.set_timesteps(steps)
        options = self.usage.options(n, [] if labels is None else labels.tolist(), self.texts(n, generator))
        options |= self.usage.once if self.student else {}
        output = self.pipeline(generator=generator, num_inference_steps=steps, output_type="np", **options)
        self.expect(hasattr(output, "images"))
        return torch.from_numpy(output.images).permute(0, 3, 1, 2) * 2 - 1

    @torch.no_grad()
    def solve(self, scheduler: Any, n: int, steps: int, generator: Any, labels: Tensor | None) -> Tensor:
        """The steps of a network on pixels, with the scheduler's own scale of its input and of the start."""
        network = self.network
        size = network.config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        scheduler.set_timesteps(steps, device=self.device)
        noise = randn_tensor((n, network.config.in_channels, *sides), generator=generator, device=self.device)
        x: Tensor = noise.to(network.dtype) * scheduler.init_noise_sigma
        given = {} if labels is None else {"class_labels": labels.to(self.device)}
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t, **given).sample
            if scheduler.config.get("variance_type") not in LEARNED:
                output = output[:, : x.shape[1]]
            x = scheduler.step(output, t, x).prev_sample
        return x.clamp(-1, 1).float()

    def trial(self, steps: int) -> Trial:
        """What one image at this many steps tells; measured.

        Raises:
            ConfigError: as a call does
        """
        seen = []

        def count(module: Any, positional: Any, named: dict[str, Any]) -> None:
            given = positional[0] if positional else named.get("sample", named.get("hidden_states"))
            assert given is not None
            seen.append(len(given))

        handle = self.network.register_forward_pre_hook(count, with_kwargs=True)
        try:
            image = self(1, steps, Generator().manual_seed(0))[0]
        finally:
            handle.remove()
        return Trial(sum(seen), tuple(image.shape))


@contextmanager
def at_work(pipeline: Any, scheduler: Any) -> Iterator[None]:
    """A pipeline under this scheduler and without its progress bar, for a while; afterwards it is as it was."""
    own, bar = pipeline.scheduler, getattr(pipeline, "_progress_bar_config", {})
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipeline.scheduler = own
        pipeline.set_progress_bar_config(**bar)
