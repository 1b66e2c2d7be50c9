"""Diffusers pipelines as draws, each sample from noise of its own, under any scheduler for their noise levels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor

from dxmi.errors import first_line, require
from dxmi.samples import turns
from dxmi.usage import usage_of_pipeline

LEARNED = ("learned", "learned_range")


class PipelineDraw:
    """A pipeline as a ``Draw`` of images (n,C,H,W) in [-1, 1], at labels at random or prompts in turn.

    Args:
        pipeline: any of diffusers'
        device: where it runs
        prompts: what a pipeline that draws from text is given
        scheduler: the name of another scheduler of diffusers, made from the config of the pipeline's; null keeps that

    Raises:
        ConfigError: prompts are missing or useless, or the scheduler is not known or not for these noise levels
    """

    def __init__(self, pipeline: Any, device: torch.device, prompts: Sequence[str] = (), scheduler: str | None = None):
        self.pipeline, self.prompts, self.device = pipeline, list(prompts), device
        self.usage = usage_of_pipeline(pipeline)
        kind = type(pipeline).__name__
        require(bool(prompts) or not self.usage.captions, f"--prompt: {kind} draws from text; give one")
        require(not prompts or self.usage.captions, f"--prompt: {kind} does not draw from text; leave it out")
        self.network = getattr(pipeline, "transformer", None) or pipeline.unet
        self.student = pipeline.scheduler.config.get("table")
        self.scheduler = pipeline.scheduler if scheduler is None else other_scheduler(pipeline.scheduler, scheduler)
        # DDPMPipeline and its like scale no input and hand every scheduler a generator: they run their own ones alone
        self.alone = scheduler is not None and self.usage.batches and not hasattr(pipeline, "vqvae")
        if scheduler is not None and kind == "DiTPipeline":
            refused = f"--scheduler: {kind} scales no start, and {scheduler} needs one of std {{:.3g}}; take another"
            sigma = float(self.scheduler.init_noise_sigma)
            require(sigma == 1, refused.format(sigma))
        self.per_sample = not hasattr(self.scheduler, "noise_sampler")  # which takes torch's own noise
        pipeline.set_progress_bar_config(disable=True)

    def __call__(self, n: int, steps: int, generator: Any) -> Tensor:
        """N images from ``steps`` steps; a list of generators has one for each.

        Raises:
            ConfigError: the scheduler cannot make that many steps
        """
        self.pipeline.to(self.device)
        self.pipeline.scheduler = self.scheduler = fresh(self.scheduler)
        if hasattr(self.pipeline, "vqvae"):  # LDMPipeline scales its start before it sets the steps
            self.scheduler.set_timesteps(steps)
        if isinstance(generator, Generator) and not self.per_sample:
            torch.manual_seed(generator.initial_seed())
        labels, prompts = self.labels(n, generator), self.texts(n, generator)
        try:
            if self.alone:
                return self.solve(n, steps, generator, labels)
            options = self.usage.options(n, [] if labels is None else labels.tolist(), prompts)
            options |= self.usage.once if self.student else {}
            with noise_from(self.scheduler, generator):
                images = self.pipeline(
                    generator=generator, num_inference_steps=steps, output_type="np", **options
                ).images
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            require(False, f"--steps: {steps} with {type(self.scheduler).__name__}: {first_line(error)}")
        return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1

    def labels(self, n: int, generator: Any) -> Tensor | None:
        """The labels (n,) that it draws at from this noise; None where it takes none."""
        return at_random(self.usage.classes, n, generator) if self.usage.classes else None

    def texts(self, n: int, generator: Any) -> list[str]:
        """The prompts that these samples are drawn at, in turn, as a student's are; none without any."""
        return [self.prompts[i % len(self.prompts)] for i in turns(n, generator).tolist()] if self.prompts else []

    @torch.no_grad()
    def solve(self, n: int, steps: int, generator: Any, labels: Tensor | None) -> Tensor:
        """The steps of a network on pixels, with the scheduler's own scale of its input and of the start."""
        network, scheduler = self.network, self.scheduler
        size = network.config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        scheduler.set_timesteps(steps, device=self.device)
        noise = randn_tensor((n, network.config.in_channels, *sides), generator=generator, device=self.device)
        x: Tensor = noise.to(network.dtype) * scheduler.init_noise_sigma
        given = {} if labels is None else {"class_labels": labels.to(self.device)}
        noisy = {"generator": generator} if takes_generator(scheduler) else {}
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t, **given).sample
            if scheduler.config.get("variance_type") not in LEARNED:
                output = output[:, : x.shape[1]]
            x = scheduler.step(output, t, x, **noisy).prev_sample
        return x.clamp(-1, 1).float()

    def evaluations(self, steps: int) -> float:
        """How often the network is called for one image, on this image alone or beside a guided copy; measured."""
        seen = []

        def count(module: Any, positional: Any, named: dict[str, Any]) -> None:
            given = positional[0] if positional else named.get("sample", named.get("hidden_states"))
            assert given is not None
            seen.append(len(given))

        handle = self.network.register_forward_pre_hook(count, with_kwargs=True)
        try:
            self(1, steps, Generator().manual_seed(0))
        finally:
            handle.remove()
        return sum(seen)


def at_random(kinds: int, n: int, generator: Any) -> Tensor:
    """N numbers of 0..kinds-1, (n,); from a list of n generators each its own."""
    if isinstance(generator, Sequence):
        return torch.cat([at_random(kinds, 1, one) for one in generator])
    return torch.randint(kinds, (n,), generator=generator)


def other_scheduler(own: Any, name: str) -> Any:
    """A scheduler of diffusers by its class's name, for the noise levels of ``own``.

    Raises:
        ConfigError: there is none of this name, it is for other noise levels, or the steps of ``own`` were learned
    """
    import diffusers

    require("table" not in own.config, "--scheduler: a student's steps were learned together; leave it out")
    known = [found for found in dir(diffusers) if found.endswith("Scheduler") and not found.startswith("Flax")]
    require(name in known, f"--scheduler: diffusers has no '{name}'; names are such as DPMSolverMultistepScheduler")
    kind = getattr(diffusers, name)
    related = type(own).__name__ in getattr(kind, "_compatibles", []) or name in getattr(own, "_compatibles", [])
    levels = [
        set(inspect.signature(found.__init__).parameters) & {"sigma_data"} for found in (type(own), kind)
    ]  # EDM's
    require(
        (related or kind is type(own)) and levels[0] == levels[1],
        f"--scheduler: {name} reads no noise levels of {type(own).__name__}; diffusers knows which do ('compatibles')",
    )
    config = dict(own.config)
    if "variance_type" in config and name != "DDPMScheduler":
        config.pop("variance_type")  # the variance is dropped before the scheduler would look for it
    return kind.from_config(config)


def fresh(scheduler: Any) -> Any:
    """The same one, never used: some read what the last call has left."""
    return type(scheduler).from_config(scheduler.config)


def takes_generator(scheduler: Any) -> bool:
    """Whether its steps draw their noise from a generator that they are given."""
    return "generator" in inspect.signature(scheduler.step).parameters


@contextmanager
def noise_from(scheduler: Any, generator: Any) -> Iterator[None]:
    """Hand the generators to the scheduler where its pipeline does not; a guided batch has a copy of each image."""
    if not takes_generator(scheduler):
        yield
        return
    step = scheduler.step

    @wraps(step)  # pipelines look which options there are
    def given(output: Tensor, timestep: Any, sample: Tensor, *more: Any, **options: Any) -> Any:
        own = generator
        if isinstance(generator, Sequence):
            own = [*generator] * (len(sample) // len(generator))
        return step(output, timestep, sample, *more, **{**options, "generator": own})

    scheduler.step = given
    try:
        yield
    finally:
        del scheduler.step
