"""What ``dxmi evaluate`` can measure: pipelines under solvers, finished runs, folders of images and datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from torch import Tensor

from dxmi.api import Draw
from dxmi.api.errors import require
from dxmi.api.fingerprint import fingerprint, pipeline_fingerprint
from dxmi.api.noise import CHUNK
from dxmi.chains.draw import noise_rule
from dxmi.evaluation.kept_samples import KeptSamples
from dxmi.evaluation.shared_samples import SharedSamples, StoredSamples
from dxmi.evaluation.stored_images import images, path_of
from dxmi.pipelines.draw import PipelineDraw
from dxmi.pipelines.load import load_pipeline
from dxmi.runs.folder import Run


class Candidate(NamedTuple):
    """A row to measure."""

    name: str
    steps: int | None
    nfe: float | None
    """calls of the network for one sample"""
    shape: tuple[int, ...]
    """(C,H,W)"""
    made: dict[str, Any]
    """what its images depend on, beside seeds: JSON types"""
    samples: Callable[[int | None], SharedSamples]
    """by seed"""
    noise: str | None = None
    """what the seeds of its samples are; None where it is stored, and there is no seed"""


class DrawOptions(NamedTuple):
    """How samples are to be made, or stored ones read; empty where nothing was said."""

    schedulers: Sequence[str] = ()
    steps: Sequence[int] = ()
    prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    batch_size: int | None = None
    column: str = "image"
    label: str | None = None
    out: Path | None = None

    def refuse(self, why: str, *keys: str) -> None:
        """Raise ConfigError if one of these was given."""
        for key in keys:
            flag = {"schedulers": "scheduler", "prompts": "prompt"}.get(key, key).replace("_", "-")
            require(not getattr(self, key), f"--{flag}", why, "leave it out")


def candidates(source: Any, asked: DrawOptions, accelerator: Accelerator) -> list[Candidate]:
    """What ``source`` is, as rows: a pipeline (loaded, or its folder or hub id), a run, or stored images.

    Raises:
        ConfigError: it is none of these, or was asked for what it cannot do
    """
    if hasattr(source, "components"):
        return solved(source, type(source).__name__, asked, accelerator)
    if isinstance(source, Tensor):
        return [stored(source, asked, accelerator)]
    named = isinstance(path_of(source), str | Path)
    require(
        named,
        "source",
        f"a {type(source).__name__} is no pipeline, path or tensor",
        "of an array take torch.from_numpy",
    )
    given = str(path_of(source))
    path = Path(given).expanduser()
    run, whole = Run.find(path), (path / "model_index.json").exists()
    if isinstance(source, Mapping):
        option = next((key for key in source if key != "path"), "path")
        require(not (run or whole), f"--source.{option}", f"{given} is drawn from, not read", "leave it out")
        return [stored(source, asked, accelerator)]
    if run and run.kind != "training":
        return [learned(run, asked, accelerator)]
    if run:
        asked = asked._replace(prompts=asked.prompts or run.prompts)
        return solved(run.pipeline(), path.resolve().name, asked, accelerator)
    if whole or not path.exists():
        return solved(load_pipeline(str(path) if path.exists() else given), path.resolve().name, asked, accelerator)
    if (path / "config.json").exists():
        load_pipeline(str(path))  # which says what else it is
    return [stored(source, asked, accelerator)]


def stored(source: Any, asked: DrawOptions, accelerator: Accelerator, key: str = "source") -> Candidate:
    """Images that are there already; ``key``: the option that they came by."""
    why = "these images are stored, and nobody draws them"
    asked.refuse(why, "schedulers", "steps", "prompts", "seeds", "batch_size")
    found = images(source, key, asked.column, asked.label, strict=key == "source")
    name = found.name if isinstance(source, Tensor) else Path(path_of(source)).resolve().name
    shape, made = found.event_shape, {"images": found.fingerprint}
    return Candidate(name, None, None, shape, made, lambda seed: StoredSamples(found, accelerator))


def learned(run: Run, asked: DrawOptions, accelerator: Accelerator) -> Candidate:
    """A run on images that left no pipeline: its learned sampler, or its chain on the learned energy."""
    asked.refuse(f"{run.folder} left no pipeline, and draws as it has learned", "schedulers", "steps", "prompts")
    _, _, draw, networks = run.finished()
    if not draw.per_sample:
        asked.refuse(f"{run.folder} draws {CHUNK} chains at once", "batch_size")
    require(
        len(draw.shape) == 3,
        run.folder,
        "its samples are vectors",
        "its evaluation.json has what 'dxmi train' measured",
    )
    steps = draw.sampler.steps * draw.times
    made = {"run": fingerprint(networks), "sampler": run.config["sampler"]}
    return drawn(draw, run.folder.name, steps, steps, draw.shape, made, asked, accelerator)


def solved(pipeline: Any, name: str, asked: DrawOptions, accelerator: Accelerator) -> list[Candidate]:
    """A pipeline under each scheduler at each number of steps."""
    whole, found = pipeline_fingerprint(pipeline), []
    for scheduler in asked.schedulers or (None,):
        draw = PipelineDraw(pipeline, accelerator.device, asked.prompts, scheduler, name)
        title = name if scheduler is None else scheduler.removesuffix("Scheduler")
        made = {"pipeline": whole, "prompts": list(asked.prompts), "dtype": str(draw.network.dtype)}
        made |= {"scheduler": type(draw.scheduler).__name__, "config": fingerprint({"scheduler": draw.scheduler})}
        for steps in asked.steps or [draw.usual_steps()]:
            nfe, shape = draw.trial(steps)
            found.append(drawn(draw, title, steps, nfe, shape, made, asked, accelerator))
    return found


def drawn(
    draw: Draw,
    name: str,
    steps: int,
    nfe: float,
    shape: tuple[int, ...],
    made: dict[str, Any],
    asked: DrawOptions,
    accelerator: Accelerator,
) -> Candidate:
    """A row whose samples are drawn, and kept under ``asked.out`` where there is one."""

    def samples(seed: int | None) -> SharedSamples:
        folder = None if asked.out is None else asked.out / "samples" / f"{name}-{steps}" / f"seed-{seed}"
        return KeptSamples(draw, steps, seed or 0, accelerator, folder, asked.batch_size or 64, made)

    return Candidate(name, steps, nfe, shape, made, samples, noise_rule(draw))
