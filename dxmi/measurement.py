"""Rows of figures for ``dxmi evaluate``, and what the screen is told meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.progress import Progress

from dxmi.api import Evaluator
from dxmi.errors import ConfigError
from dxmi.evaluation import data_floor, measure, noted
from dxmi.figures import metric_label
from dxmi.items import Images
from dxmi.parts import Part
from dxmi.report import FLOOR, over_seeds
from dxmi.subjects import Subject


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

    def row(self, subject: Subject) -> dict[str, Any]:
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

    def measured(self, samples: Part, name: str) -> dict[str, Any]:
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
