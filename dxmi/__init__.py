"""dxmi: fine-tune pretrained diffusers pipelines to a few steps by a game between an energy and a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dxmi.report import Report

__version__ = version("dxmi")


def evaluate(pipeline: Any, reference: str | Path, metrics: Sequence[str] | None = None, **options: Any) -> Report:
    """Measure samples of a pipeline, or stored images, against reference images: ``dxmi evaluate`` in Python.

    Args:
        pipeline: a loaded pipeline, its folder or hub id, a run, a folder of images or a dataset
        reference: a dataset, a folder of images or published statistics (.npz)
        metrics: of the evaluator, as fid, kid, isc, prc, accuracy; None takes all that can be had
        options: evaluator (a name, or {name: ..., options}), extractor, n, seeds, batch_size, schedulers, steps,
            prompts, column, label, out: as of the command

    Raises:
        ConfigError: what is given is wrong; the message says what
    """
    from dxmi.measuring import evaluate as run  # torch is imported by whoever measures

    return run(pipeline, reference, metrics, **options)
