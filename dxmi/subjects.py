"""What ``dxmi evaluate`` can measure: pipelines under solvers, finished runs, folders of images and datasets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from dxmi.api import ConfigError, Draw, Samples
from dxmi.data import Data, load_data
from dxmi.dialect import read
from dxmi.drawing import noise_rule
from dxmi.drawn import DrawnSamples
from dxmi.errors import require
from dxmi.items import Images
from dxmi.learned import learned_draw
from dxmi.parts import StoredSamples
from dxmi.piped import PipelineDraw
from dxmi.pipelines import load_pipeline, usual_steps


class Subject(NamedTuple):
    """A row to measure."""

    name: str
    steps: int | None
    nfe: float | None
    """calls of the network for one sample"""
    samples: Callable[[int | None], Samples]
    """by seed"""
    noise: str | None = None
    """what the seeds of its samples are; None where it is stored, and there is no seed"""


class Asked(NamedTuple):
    """How samples are to be made."""

    schedulers: Sequence[str] = ()
    steps: Sequence[int] = ()
    prompts: Sequence[str] = ()
    batch_size: int = 64
    out: Path | None = None


def images(path: str, column: str, label: str | None = None) -> Images:
    """A dataset or a folder of images, in memory in eight bits.

    Raises:
        ConfigError: it cannot be read, holds no images, or they differ in size
    """
    found = load_data(Data(path=path, column=column, label=label))
    if not isinstance(found, Images):
        raise ConfigError(f"{path}: column '{column}' holds no images; name one that does with --column")
    return found


def subjects(source: Any, column: str, label: str | None, asked: Asked, accelerator: Accelerator) -> list[Subject]:
    """What ``source`` is, as rows: a pipeline (loaded, or its folder or hub id), a run, or stored images.

    Raises:
        ConfigError: it is none of these, or was asked for what it cannot do
    """
    if not isinstance(source, str | Path):
        return solved(source, type(source).__name__, asked, accelerator)
    path = Path(source).expanduser()
    if (path / "run.yaml").exists() and not (path / "pipeline").exists():
        return [learned(path, asked, accelerator)]
    if (path / "run.yaml").exists() or (path / "model_index.json").exists() or not path.exists():
        return solved(load_pipeline(str(source)), path.name, asked, accelerator)
    if (path / "config.json").exists():
        load_pipeline(str(source))  # which says what else it is
    refuse(asked, f"{source} holds images, which nobody draws")
    stored = images(str(source), column, label)
    return [Subject(path.name, None, None, lambda seed: StoredSamples(stored, accelerator))]


def refuse(asked: Asked, why: str) -> None:
    """Raise ConfigError if anything is asked of a pipeline."""
    for key, given in (("--steps", asked.steps), ("--scheduler", asked.schedulers), ("--prompt", asked.prompts)):
        require(not given, f"{key}: {why}; leave it out")


def learned(run: Path, asked: Asked, accelerator: Accelerator) -> Subject:
    """A run on images that left no pipeline: its learned sampler, or its chain on the learned energy."""
    refuse(asked, f"{run} left no pipeline, and draws as it has learned")
    draw, networks = learned_draw(run)
    require(len(draw.shape) == 3, f"{run}: its samples are vectors; its evaluation.json has what 'dxmi train' measured")
    steps = draw.sampler.steps * draw.times
    made = {"run": fingerprint(networks), "config": read(run / "run.yaml")["sampler"]}
    return Subject(run.name, steps, steps, kept(draw, run.name, steps, made, asked, accelerator), noise_rule(draw))


def solved(pipeline: Any, name: str, asked: Asked, accelerator: Accelerator) -> list[Subject]:
    """A pipeline under each scheduler at each number of steps."""
    print_of = fingerprint(pipeline.components)
    found = []
    for scheduler in asked.schedulers or (None,):
        draw = PipelineDraw(pipeline, accelerator.device, asked.prompts, scheduler)
        fixed = [len(draw.student)] if draw.student else [usual_steps(pipeline)] if not asked.steps else []
        for steps in asked.steps or fixed:
            require(not draw.student or steps == fixed[0], f"--steps: this student has {fixed} steps; leave it out")
            nfe = draw.evaluations(steps)
            made = {"pipeline": print_of, "scheduler": type(draw.scheduler).__name__, "prompts": list(asked.prompts)}
            title = name if scheduler is None else scheduler.removesuffix("Scheduler")
            found.append(
                Subject(title, steps, nfe, kept(draw, title, steps, made, asked, accelerator), noise_rule(draw))
            )
    return found


def kept(
    draw: Draw, name: str, steps: int, made: dict[str, Any], asked: Asked, accelerator: Accelerator
) -> Callable[[int | None], Samples]:
    """Samples of a seed, kept under ``asked.out`` where there is one."""

    def samples(seed: int | None) -> Samples:
        folder = None if asked.out is None else asked.out / "samples" / f"{name}-{steps}" / f"seed-{seed}"
        return DrawnSamples(draw, steps, seed or 0, accelerator, folder, asked.batch_size, made)

    return samples


def fingerprint(parts: dict[str, Any]) -> str:
    """SHA-256 of all weights and settings of a pipeline's components, or of networks."""
    found = hashlib.sha256()
    for name, part in sorted(parts.items()):
        config = getattr(part, "config", None) or {}
        settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        settings = {key: value for key, value in settings.items() if not key.startswith("_")}  # where it came from
        found.update(json.dumps([name, type(part).__name__, settings], sort_keys=True, default=str).encode())
        for key, tensor in sorted(part.state_dict().items()) if hasattr(part, "state_dict") else ():
            found.update(key.encode())
            found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
