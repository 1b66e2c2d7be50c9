"""What can be measured: pipelines under solvers, finished runs, stored images, and samplers while a run learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from dxmi.api import Draw
from dxmi.api.errors import require
from dxmi.api.fingerprint import fingerprint, pipeline_fingerprint
from dxmi.api.noise import CHUNK
from dxmi.chains import noise_rule
from dxmi.data import Images
from dxmi.evaluation.kept_samples import KeptSamples
from dxmi.evaluation.options import EvaluateOptions
from dxmi.evaluation.shared_samples import SharedSamples, StoredSamples
from dxmi.evaluation.stored_images import Given, images, path_of
from dxmi.pipelines import PipelineDraw, load_pipeline
from dxmi.runs.folder import Run

USUAL = 64
"""images drawn at once"""
STEPS = (2, 3, 4, 5, 6, 7, 8, 10)
"""numbers of steps of the solver that a student is held against"""
RIVAL = "teacher-"
"""before the names of a student's rivals"""


class Candidate(NamedTuple):
    """A row to measure."""

    name: str
    steps: int | None
    nfe: float | None
    """calls of the network for one sample"""
    shape: tuple[int, ...]
    """S of a sample; of images (C,H,W)"""
    made: dict[str, Any]
    """what its samples depend on, beside seeds: JSON types"""
    samples: Callable[[int | None], SharedSamples]
    """by seed"""
    noise: str | None = None
    """what the seeds of its samples are; None where it is stored, and there is no seed"""

    def row(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The row of a report with these figures, ``{samples, metrics}`` and maybe more."""
        return {"name": self.name, "steps": self.steps, "nfe": self.nfe, **figures}


def draw_candidate(
    draw: Draw,
    name: str,
    steps: int,
    nfe: float,
    accelerator: Accelerator,
    *,
    shape: tuple[int, ...] = (),
    made: dict[str, Any] | None = None,
    batch_size: int = CHUNK,
    folder: Path | None = None,
) -> Candidate:
    """A row whose samples are drawn.

    Args:
        draw: what draws them
        name: of the row
        steps: what it is asked for
        nfe: calls of the network for one sample
        accelerator: the processes that share the work
        shape: S of a sample, where somebody compares it with a reference's
        made: what the samples depend on, beside seeds: JSON types
        batch_size: drawn at once
        folder: keeps them in ``NAME-STEPS/seed-SEED``; None keeps none
    """
    depends = made or {}

    def samples(seed: int | None) -> SharedSamples:
        place = None if folder is None else folder / f"{name}-{steps}" / f"seed-{seed}"
        return KeptSamples(draw, steps, seed or 0, accelerator, place, batch_size, depends)

    return Candidate(name, steps, nfe, shape, depends, samples, noise_rule(draw))


def stored_candidate(stored: Images, name: str, accelerator: Accelerator) -> Candidate:
    """A row of images that are there already."""
    made = {"images": stored.fingerprint}
    return Candidate(name, None, None, stored.event_shape, made, lambda seed: StoredSamples(stored, accelerator))


def candidates(source: Any, options: EvaluateOptions, accelerator: Accelerator) -> list[Candidate]:
    """What ``source`` is, as rows: a pipeline (loaded, or its folder or hub id), a run, or stored images.

    Raises:
        ConfigError: it is none of these, or was asked for what it cannot do
    """
    if hasattr(source, "components"):  # as any pipeline of diffusers has
        return pipeline_candidates(source, type(source).__name__, options.prompts, options, accelerator)
    if isinstance(source, Tensor):
        return [image_candidate(source, options, accelerator)]
    place = path_of(source)
    known = isinstance(place, str | Path | Run)
    kind = type(source).__name__
    require(known, "source", f"a {kind} is no pipeline, path or tensor", "of an array take torch.from_numpy")
    path = Path(place).expanduser()
    run, whole = Run.find(path), (path / "model_index.json").exists()
    if isinstance(source, Mapping):
        option = next((key for key in source if key != "path"), "path")
        require(not (run or whole), f"source.{option}", f"{place} is drawn from, not read", "leave it out")
        return [image_candidate(source, options, accelerator)]
    if run and run.kind != "training":
        return [run_candidate(run, options, accelerator)]
    if run or whole or not path.exists():
        given = str(path) if path.exists() else str(place)
        pipeline = run.pipeline() if run else load_pipeline(given)
        prompts = options.prompts or (run.prompts if run else ())
        return pipeline_candidates(pipeline, path.resolve().name, prompts, options, accelerator)
    if (path / "config.json").exists():
        load_pipeline(str(path))  # which says what else it is
    return [image_candidate(source, options, accelerator)]


def image_candidate(source: Given, options: EvaluateOptions, accelerator: Accelerator) -> Candidate:
    """A row of images that are there already, as the source."""
    why = "these images are stored, and nobody draws them"
    options.refuse(why, "schedulers", "steps", "prompts", "seeds", "batch_size")
    stored = images(source, "source", options.column, options.label, strict=True)
    name = stored.name if isinstance(source, Tensor) else Path(path_of(source)).resolve().name
    return stored_candidate(stored, name, accelerator)


def run_candidate(run: Run, options: EvaluateOptions, accelerator: Accelerator) -> Candidate:
    """A run on images that left no pipeline: its learned sampler, or its chain on the learned energy."""
    options.refuse(f"{run.folder} left no pipeline, and draws as it has learned", "schedulers", "steps", "prompts")
    finished = run.finished()
    draw = finished.draw
    if not draw.per_sample:
        options.refuse(f"{run.folder} draws {CHUNK} chains at once", "batch_size")
    cure = "its evaluation.json has what 'dxmi train' measured"
    require(len(draw.shape) == 3, run.folder, "its samples are vectors", cure)
    steps = draw.sampler.steps * draw.times
    made = {"run": fingerprint(finished.networks), "sampler": run.config["sampler"]}
    kept = keeping(options)
    return draw_candidate(draw, run.folder.name, steps, steps, accelerator, shape=draw.shape, made=made, **kept)


def pipeline_candidates(
    pipeline: Any, name: str, prompts: Any, options: EvaluateOptions, accelerator: Accelerator
) -> list[Candidate]:
    """A pipeline under each scheduler at each number of steps."""
    digest, rows = pipeline_fingerprint(pipeline), list[Candidate]()
    for scheduler in options.schedulers or (None,):
        draw = PipelineDraw(pipeline, accelerator.device, prompts, scheduler, name)
        title = name if scheduler is None else scheduler.removesuffix("Scheduler")
        made = {"pipeline": digest, "prompts": list(prompts), "dtype": str(draw.network.dtype)}
        made |= {"scheduler": type(draw.scheduler).__name__, "config": fingerprint({"scheduler": draw.scheduler})}
        for steps in options.steps or [draw.usual_steps()]:
            nfe, shape = draw.trial(steps)
            kept = keeping(options)
            rows.append(draw_candidate(draw, title, steps, nfe, accelerator, shape=shape, made=made, **kept))
    return rows


def solver_candidates(
    source: Any, options: EvaluateOptions, shape: tuple[int, ...], accelerator: Accelerator
) -> list[Candidate]:
    """The teacher of a run under the solver that ``steps_like`` names, by ``STEPS``, as ``dxmi train`` draws from it.

    shape: S of a sample

    Raises:
        ConfigError: the source is no run that left a pipeline, or its teacher has no such solver
    """
    run, key = Run.find(source), "steps_like"
    require(run is not None and run.kind == "training", key, "what is measured is no run, so it has no teacher")
    assert run is not None and options.steps_like is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)  # adapters start at random; the teacher's call leaves them out
        sampler = run.checked().build().sampler.to(accelerator.device).eval()
    solvers, name = sampler.rivals(), f"{RIVAL}{options.steps_like.removeprefix(RIVAL)}"
    known = ", ".join(solver.removeprefix(RIVAL) for solver in solvers)
    require(name in solvers, key, f"the teacher has no solver '{options.steps_like}'", f"it has {known or 'none'}")
    made = {"run": fingerprint({"sampler": sampler}), "sampler": run.config["sampler"], "solver": name}
    more = {"shape": shape, "made": made, **keeping(options)}
    return [draw_candidate(solvers[name], name, k, k * sampler.rival_calls, accelerator, **more) for k in STEPS]


def keeping(options: EvaluateOptions) -> dict[str, Any]:
    """How many samples are drawn at once, and what keeps them."""
    folder = None if options.folder is None else options.folder / "samples"
    return {"batch_size": options.batch_size or USUAL, "folder": folder}
