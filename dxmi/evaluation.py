"""Call the evaluators on samples of all processes, stamp the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, Draw, Evaluator, Samples, as_samples
from dxmi.drawn import DrawnSamples, versions
from dxmi.items import Items
from dxmi.parts import StoredSamples
from dxmi.report import FLOOR
from dxmi.samples import CHUNK


class Contender(NamedTuple):
    """A row of the table: what draws, and in how many steps."""

    name: str
    steps: int
    draw: Draw
    calls: int = 1
    """of the network, in each step"""


def evaluate(
    contenders: list[Contender],
    evaluators: list[Evaluator],
    reference: Dataset[Tensor],
    seed: int,
    accelerator: Accelerator,
    tell: Callable[[str], None] = lambda message: None,
    batch_size: int = CHUNK,
) -> list[dict[str, Any]]:
    """One row for each contender: ``{name, steps, nfe, samples, metrics}``. Every process computes the same rows.

    ``tell`` hears what is going on and what evaluators warn of, each line once; ``batch_size``: see ``DrawnSamples``.
    """
    rows, said = [], set[str]()
    for name, steps, draw, calls in contenders:
        tell(f"evaluating {name} at {steps} steps")
        with noted(tell, said):
            found = measure(evaluators, reference, DrawnSamples(draw, steps, seed, accelerator, None, batch_size))
        rows.append({"name": name, "steps": steps, "nfe": steps * calls, **found})
    return rows


def measure(
    evaluators: list[Evaluator], reference: Dataset[Tensor], draw: Callable[[int], Tensor] | Samples
) -> dict[str, Any]:
    """All evaluators on the same samples: ``{samples, metrics}``."""
    samples = as_samples(draw)
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        found = evaluator(samples, reference)
        if metrics.keys() & found.keys():
            clash = ", ".join(sorted(metrics.keys() & found.keys()))
            raise ConfigError(f"evaluators: two of them report {clash}; choose other metrics for one")
        metrics |= found
    return {"samples": getattr(samples, "drawn", 0), "metrics": metrics}


@contextmanager
def noted(tell: Callable[[str], None] | None, said: set[str] | None = None) -> Iterator[None]:
    """Warnings as lines, each once and none of ``said``, or left out; other kinds than UserWarning never show."""
    told = set() if said is None else said
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    lines = [f"note: {warning.message}" for warning in caught if warning.category is UserWarning]
    for line in dict.fromkeys(lines):
        if tell is not None and line not in told:
            tell(line)
        told.add(line)


def data_floor(evaluators: list[Evaluator], data: Items, accelerator: Accelerator, seed: int) -> dict[str, Any]:
    """The row of two random halves of the real data against each other: what perfect samples would get."""
    drawn, reference = (data.half(k, seed) for k in (0, 1))
    reference.fingerprint = None  # its statistics are worth no file in the cache
    row = measure(evaluators, reference, StoredSamples(drawn, accelerator))
    return {"name": FLOOR, "steps": None, "nfe": None, **row}


def stamp(
    evaluators: list[Evaluator],
    reference: dict[str, Any],
    seed: int | list[int],
    samples: int,
    noise: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> dict[str, Any]:
    """What the numbers were made with and measured against.

    samples: how many of the first row; noise: where that of each draw came from; prompts: what was drawn at.
    """
    return {
        **versions(),
        "evaluators": [evaluator.stamp() for evaluator in evaluators],
        "reference": reference,
        "samples": samples,
        "seed": seed,
        "noise": sorted(set(noise)),
        "prompts": list(prompts),
    }
