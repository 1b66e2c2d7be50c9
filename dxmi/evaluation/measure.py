"""Evaluators on samples of all processes, row by row, and the stamp of what made the figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from accelerate import Accelerator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, Draw, Evaluator, Samples, as_samples
from dxmi.api.noise import CHUNK
from dxmi.data.items import Images, Items
from dxmi.evaluation.candidates import Candidate
from dxmi.evaluation.kept_samples import KeptSamples, versions
from dxmi.evaluation.report import FLOOR, over_seeds
from dxmi.evaluation.shared_samples import SharedSamples, StoredSamples
from dxmi.evaluation.tables import metric_label


class Contender(NamedTuple):
    """A row of the table: what draws, and in how many steps."""

    name: str
    steps: int
    draw: Draw
    calls: int = 1
    """of the network, in each step"""


def measure_contenders(
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
            found = measure(evaluators, reference, KeptSamples(draw, steps, seed, accelerator, None, batch_size))
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
            raise ConfigError("evaluators", f"two of them report {clash}", "choose other metrics for one")
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


class Measurement:
    """One evaluator on one row after another, over seeds; the screen is told what it finds.

    Args:
        judge: the evaluator
        real: reference images; None where the evaluator has published statistics
        seeds: of what is drawn, and of the halves
        size: number of samples
        accelerator: the processes that share the work
    """

    def __init__(
        self, judge: Evaluator, real: Images | None, seeds: Sequence[int], size: int, accelerator: Accelerator
    ):
        self.judge, self.real, self.seeds, self.size, self.accelerator = judge, real, seeds, size, accelerator
        self.console = Console(stderr=True, quiet=not accelerator.is_main_process)

    def tell(self, line: str) -> None:
        """A line on the screen of the main process."""
        self.console.print(line, style="dim", highlight=False, soft_wrap=True)

    def row(self, subject: Candidate) -> dict[str, Any]:
        """One measurement for each seed, or a single one of what is stored."""
        found: dict[int | None, dict[str, Any]] = {}
        for seed in self.seeds if subject.noise is not None else (None,):
            at = "" if subject.steps is None else f", {subject.steps} steps, seed {seed}"
            with noted(None if found else self.tell):  # every seed has the same to say
                found[seed] = self.measured(subject.samples(seed), subject.name + at)
            first, value = next(iter(found[seed]["metrics"].items()))
            self.tell(f"{subject.name}{at}: {metric_label(first, found[seed]['samples'])} {value:.4g}")
        row = over_seeds(subject.name, subject.steps, subject.nfe, found) | {"subject": subject.made}
        if subject.noise is None and subject.name != FLOOR and row["samples"] < self.size:
            self.tell(f"note: {row['samples']} images of {subject.name} were measured, not {self.size}")
        return row

    def measured(self, samples: SharedSamples, name: str) -> dict[str, Any]:
        """``measure`` with a bar of the images that this process has had, where somebody looks at it."""
        shown = self.console.is_terminal and not self.console.quiet
        columns = Progress.get_default_columns()
        bar = Progress(*columns, console=self.console, transient=True, redirect_stdout=False, disable=not shown)
        with bar:
            task = bar.add_task(name, total=len(samples.rows(self.size)))
            samples.seen = partial(bar.advance, task)
            return measure([self.judge], self.real, samples)  # type: ignore[arg-type]

    def halves(self) -> list[dict[str, Any]]:
        """The data's own row: random halves against each other, others with each seed; none if they are too few."""
        if self.real is None:
            return []
        try:
            with noted(lambda line: self.tell(f"{FLOOR}: {line}")):
                judge, real, shared = [self.judge], self.real, self.accelerator
                floors: dict[int | None, dict[str, Any]] = {s: data_floor(judge, real, shared, s) for s in self.seeds}
        except ConfigError as error:
            self.tell(f"no {FLOOR}: {error}")
            return []
        return [over_seeds(FLOOR, None, None, floors)]
