"""Samples of runs, of pipelines, and of chains on a known density (``dxmi sample``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Generator, Tensor

from dxmi.api.errors import require
from dxmi.chains import chains_of, drawn_figures, first_samples, tensors
from dxmi.config import ChainsConfig, check_given
from dxmi.pipelines import PipelineDraw, load_pipeline
from dxmi.runs.folder import Run

AT_ONCE = 64
"""images in a batch"""
IMAGES, OTHERS = 64, 1000
"""samples that are drawn where nobody says how many"""


def sample(
    source: str | Path | Run,
    n: int | None = None,
    *,
    seed: int | None = None,
    steps: int | None = None,
    prompts: Sequence[str] = (),
) -> Tensor:
    """Samples (n,*S) on the CPU; images are in [-1, 1].

    Args:
        source: a run; the folder or hub id of a diffusers pipeline; or a YAML file of chains on a known density
        n: how many; None draws 64 images, 1000 of what is no image, or as many as the file says
        seed: of all noise, 0 <= seed < 2^32; None is 0, or what the file says
        steps: of pipelines and chains; None takes what they have
        prompts: taken in turn by pipelines that draw from text; empty takes the run's own

    Raises:
        ConfigError: it is none of these, or was asked for what it cannot do
    """
    require(n is None or (isinstance(n, int) and n >= 1), "n", f"{n!r} is no positive whole number", "give at least 1")
    require(seed is None or 0 <= seed < 2**32, "seed", f"{seed} is not between 0 and 2^32 - 1")
    if isinstance(source, str | Path) and Path(source).suffix in (".yaml", ".yml"):
        require(not prompts, "prompts", "chains on a density draw from no text", "leave them out")
        given = {"chains": n, "seed": seed, "sampler.steps": steps}
        config = check_given(ChainsConfig, source, {key: value for key, value in given.items() if value is not None})
        return chains_of(config).samples.cpu()
    return sample_tensors(source, n, seed or 0, steps, prompts)["samples"]


def sample_tensors(
    source: str | Path | Run, n: int | None, seed: int, steps: int | None, prompts: Sequence[str]
) -> dict[str, Tensor]:
    """``samples`` (n,*S) of a run or pipeline and, of a run on a known density, ``log_w`` (n,) where there are some.

    Raises:
        ConfigError: as ``sample``
    """
    require(0 <= seed < 2**32, "seed", f"{seed} is not between 0 and 2^32 - 1")
    run = Run.find(source)
    if run is None or run.kind == "training":
        return {"samples": pipeline_samples(source, run, n or IMAGES, seed, steps, prompts)}
    run.require_finished()
    require(not prompts, "prompts", f"{run.folder} does not draw from text", "leave it out")
    require(steps is None, "steps", f"{run.folder} draws with the steps that it was trained with", "leave it out")
    finished = run.finished()
    if run.kind == "density":
        return tensors(drawn_figures(finished.run.sampler, finished.cost, n or OTHERS, seed)[0])
    number, generator = n or (IMAGES if run.kind == "images" else OTHERS), Generator().manual_seed(seed)
    return {"samples": finished.draw(number, finished.draw.sampler.steps, generator).cpu().contiguous()}


def pipeline_samples(
    source: Any, run: Run | None, n: int, seed: int, steps: int | None, prompts: Sequence[str]
) -> Tensor:
    """N images (n,C,H,W) in [-1, 1], of the prompts in turn, or of classes at random where a pipeline has classes.

    They are the first ones that ``dxmi evaluate`` draws with this seed.

    Raises:
        ConfigError: there is no such pipeline, it cannot make that many steps, or it needs prompts or knows none
    """
    pipeline = load_pipeline(os.fspath(source) if run is None else str(run.pipeline_folder))
    texts = prompts or ([] if run is None else run.prompts)
    draw = PipelineDraw(pipeline, Accelerator().device, texts, name=os.fspath(source))
    return first_samples([draw], n, draw.usual_steps() if steps is None else steps, seed, AT_ONCE)[0]
