"""Samples of runs and pipelines (``dxmi sample``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import Generator, Tensor

from dxmi.api.errors import require
from dxmi.chains.draw import first_samples
from dxmi.chains.log_weights import drawn_figures, tensors
from dxmi.pipelines.draw import PipelineDraw
from dxmi.pipelines.load import load_pipeline
from dxmi.runs.finished import learned_draw, load_density_run

AT_ONCE = 64
"""images in a batch"""


def sample_pipeline(source: str, n: int, steps: int | None, seed: int, prompts: Sequence[str] = ()) -> Tensor:
    """N images (n,C,H,W) in [-1, 1] from a run's pipeline, a pipeline folder or a hub id.

    They are of the prompts in turn, or of classes at random, for pipelines that draw these; and they are the first ones
    that ``dxmi evaluate`` draws with this seed.

    Raises:
        ConfigError: there is no such pipeline, it cannot make that many steps, or it needs prompts or knows none
    """
    require(0 <= seed < 2**32, "seed", f"{seed} is not between 0 and 2^32 - 1")
    pipeline = load_pipeline(source)
    draw = PipelineDraw(pipeline, Accelerator().device, prompts, name=source)
    return first_samples([draw], n, draw.usual_steps() if steps is None else steps, seed, AT_ONCE)[0]


def sample_learned(folder: Path, n: int | None, seed: int) -> Tensor:
    """N samples (n,*S) of such a run; None draws 64 images or 1000 vectors.

    Raises:
        ConfigError: as ``learned_draw``
    """
    draw, _ = learned_draw(folder)
    return draw(n or (64 if len(draw.shape) == 3 else 1000), draw.sampler.steps, Generator().manual_seed(seed))


def sample_density_run(folder: Path, n: int, seed: int) -> dict[str, Tensor]:
    """N samples of a run on a known density, with log-weights where its steps have some.

    Raises:
        ConfigError: as ``load_density_run``
    """
    _, sampler, cost = load_density_run(folder)
    return tensors(drawn_figures(sampler, cost, n, seed)[0])
