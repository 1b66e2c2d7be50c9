"""Draw samples on all processes, call the evaluators, stamp the result."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Generator, Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, CostToGo, Draw, Evaluator, Sampler
from dxmi.items import Items
from dxmi.objectives import walk

CHUNK = 256  # samples that share one seed; fixed, so that the images do not depend on the number of processes


class Contender(NamedTuple):
    """A row of the table: what draws, and in how many steps."""

    name: str
    steps: int
    draw: Draw
    calls: int = 1
    """of the network, in each step"""


def student(sampler: Sampler, shape: tuple[int, ...], cost: CostToGo | None = None, times: int = 1) -> Draw:
    """A sampler as a ``Draw`` at conditions of its choice; shape (S) of one item of the data.

    cost: may be missing where the sampler's steps do not use it.
    times: how often the chain runs, each time from where it ended.
    """
    J = cost or (lambda x, t: x.new_zeros(len(x)))

    def draw(n: int, steps: int, generator: Generator) -> Tensor:
        end: Tensor | None = None
        cond = sampler.conditions(n, generator)
        for _ in range(times):
            for x in walk(sampler, J, (n, *sampler.state_shape(shape)), generator, cond, start=end):
                last = x
            end = last
        return sampler.decode(last)

    return draw


def draw_samples(draw: Draw, n: int, steps: int, seed: int, accelerator: Accelerator) -> Tensor:
    """(n,*S) on the CPU of every process; chunk i is drawn by process i modulo their number, from its own seed."""
    mine = []
    for chunk in range(accelerator.process_index, -(-n // CHUNK), accelerator.num_processes):
        generator = Generator().manual_seed(seed * 1_000_003 + chunk)
        size = min(CHUNK, n - chunk * CHUNK)
        mine.append((chunk, draw(size, steps, generator).cpu()))
    parts = gather_object(mine) if accelerator.num_processes > 1 else mine
    return torch.cat([part for _, part in sorted(parts, key=lambda pair: pair[0])])


def evaluate(
    contenders: list[Contender],
    evaluators: list[Evaluator],
    reference: Dataset[Tensor],
    seed: int,
    accelerator: Accelerator,
    tell: Callable[[str], None] = lambda message: None,
) -> list[dict[str, Any]]:
    """One row for each contender: ``{name, steps, nfe, samples, metrics}``. Every process computes the same rows."""
    rows = []
    for name, steps, draw, calls in contenders:
        tell(f"evaluating {name} at {steps} steps")
        rows.append(measure(evaluators, reference, lambda n, d=draw, s=steps: draw_samples(d, n, s, seed, accelerator)))  # type: ignore[misc]
        rows[-1] = {"name": name, "steps": steps, "nfe": steps * calls, **rows[-1]}
    return rows


def measure(evaluators: list[Evaluator], reference: Dataset[Tensor], draw: Callable[[int], Tensor]) -> dict[str, Any]:
    """All evaluators on the same samples: ``{samples, metrics}``."""
    drawn: list[int] = []

    @cache
    def once(n: int) -> Tensor:
        samples = draw(n)
        drawn.append(len(samples))
        return samples

    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        found = evaluator(once, reference)
        if metrics.keys() & found.keys():
            clash = ", ".join(sorted(metrics.keys() & found.keys()))
            raise ConfigError(f"evaluators: two of them report {clash}; choose other metrics for one")
        metrics |= found
    return {"samples": max(drawn, default=0), "metrics": metrics}


def data_floor(evaluators: list[Evaluator], data: Items) -> dict[str, Any]:
    """The row of two halves of the real data against each other: even rows drawn, odd rows the reference."""
    even, odd = (data.every_other(k) for k in (0, 1))
    row = measure(evaluators, odd, lambda n: even[: min(n, len(even))])
    return {"name": "data-floor", "steps": None, "nfe": None, **row}


def stamp(evaluators: list[Evaluator], reference: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the numbers were made with and measured against."""
    return {
        "dxmi": version("dxmi"),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "evaluators": [evaluator.stamp() for evaluator in evaluators],
        "reference": reference,
        "seed": seed,
        "samples_per_seed": CHUNK,
    }
