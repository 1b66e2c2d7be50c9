"""Evaluators on samples of all processes, row by row, and the stamp of what made the figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, Evaluator, Samples, as_samples
from dxmi.api.evaluator import Counted
from dxmi.data import Images, Items
from dxmi.evaluation.candidates import Candidate
from dxmi.evaluation.headline import likened, too_coarse
from dxmi.evaluation.kept_samples import versions
from dxmi.evaluation.report import FLOOR, over_seeds
from dxmi.evaluation.shared_samples import SharedSamples, StoredSamples
from dxmi.evaluation.tables import metric_label
from dxmi.screen import Screen


def measure(
    evaluators: Sequence[Evaluator], reference: Dataset[Tensor], draw: Callable[[int], Tensor] | Samples
) -> dict[str, Any]:
    """All evaluators on the same samples.

    Args:
        evaluators: each adds figures of its own
        reference: what they compare with: an event (*S) an item
        draw: ``draw(n) -> (n,*S)``, or samples that processes share

    Returns:
        ``{samples, metrics}``: how many were measured at most, and all figures by name

    Raises:
        ConfigError: two evaluators report a figure of one name
    """
    samples = as_samples(draw)
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        own = evaluator(samples, reference)
        if metrics.keys() & own.keys():
            clash = ", ".join(sorted(metrics.keys() & own.keys()))
            raise ConfigError("evaluators", f"two of them report {clash}", "choose other metrics for one")
        metrics |= own
    return {"samples": samples.drawn if isinstance(samples, Counted) else 0, "metrics": metrics}


@contextmanager
def noted(tell: Callable[[str], None] | None, said: set[str] | None = None) -> Iterator[None]:
    """Warnings as lines, each once and none of ``said``, or left out; other kinds than UserWarning never show."""
    before = set() if said is None else said
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    lines = [f"note: {warning.message}" for warning in caught if warning.category is UserWarning]
    for line in dict.fromkeys(lines):
        if tell is not None and line not in before:
            tell(line)
        before.add(line)


def stamp(
    rows: Sequence[Candidate],
    evaluators: Sequence[Evaluator],
    reference: dict[str, Any],
    seed: int | list[int],
    samples: int,
) -> dict[str, Any]:
    """What the figures of these rows were made with and measured against.

    Args:
        rows: where their noise comes from, and the prompts of the first
        evaluators: what measures
        reference: what it is, JSON types
        seed: the seed, or all of them
        samples: how many of the first row
    """
    return {
        **versions(),
        "evaluators": [evaluator.stamp() for evaluator in evaluators],
        "reference": reference,
        "samples": samples,
        "seed": seed,
        "noise": sorted({row.noise for row in rows if row.noise is not None}),
        "prompts": list(rows[0].made.get("prompts", [])),
    }


def compare(
    rows: Sequence[Candidate],
    evaluators: Sequence[Evaluator],
    reference: Dataset[Tensor],
    about: dict[str, Any],
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """A run's row beside others, each measured with one seed: the content of ``evaluation.json``.

    Every process takes part and has the same figures.

    Args:
        rows: the student and its rivals
        evaluators: what measures
        reference: what samples are compared with
        about: what the reference is, JSON types
        seed: of all samples
        tell: hears what is going on, and what evaluators warn of, each line once

    Returns:
        ``{rows, stamp}``; a row is ``{name, steps, nfe, samples, metrics}``, the student's with ``steps_like``, see
        ``likened``, if a rival was measured at several numbers of steps
    """
    said, figures = set[str](), list[dict[str, Any]]()
    for row in rows:
        tell(f"evaluating {row.name} at {row.steps} steps")
        with noted(tell, said):
            figures.append(row.row(measure(evaluators, reference, row.samples(seed))))
    figures = likened(figures)
    for line in too_coarse(figures, FLOOR):
        tell(f"note: {line}")
    return {"rows": figures, "stamp": stamp(rows, evaluators, about, seed, figures[0]["samples"])}


def data_floor(evaluators: Sequence[Evaluator], data: Items, accelerator: Accelerator, seed: int) -> dict[str, Any]:
    """The row of two random halves of the real data against each other: what perfect samples would get."""
    one, reference = (data.half(k, seed) for k in (0, 1))
    reference.fingerprint = None  # its statistics are worth no file in the cache
    figures = measure(evaluators, reference, StoredSamples(one, accelerator))
    return {"name": FLOOR, "steps": None, "nfe": None, **figures}


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
        self.screen = Screen(accelerator.is_main_process)

    def row(self, candidate: Candidate) -> dict[str, Any]:
        """One measurement for each seed, or a single one of what is stored."""
        name, tell, figures = candidate.name, self.screen.tell, dict[int | None, dict[str, Any]]()
        for seed in self.seeds if candidate.noise is not None else (None,):
            at = "" if candidate.steps is None else f", {candidate.steps} steps, seed {seed}"
            with noted(None if figures else tell):  # every seed has the same to say
                figures[seed] = self.with_bar(candidate.samples(seed), name + at)
            first, value = next(iter(figures[seed]["metrics"].items()))
            tell(f"{name}{at}: {metric_label(first, figures[seed]['samples'])} {value:.4g}")
        row = over_seeds(name, candidate.steps, candidate.nfe, figures) | {"subject": candidate.made}
        if candidate.noise is None and name != FLOOR and row["samples"] < self.size:
            tell(f"note: {row['samples']} images of {name} were measured, not {self.size}")
        return row

    def until(self, candidates: Sequence[Candidate], metric: str, level: float) -> list[dict[str, Any]]:
        """Rows of one candidate after the other, until a figure is at ``level`` or below."""
        rows = list[dict[str, Any]]()
        for candidate in candidates:
            rows.append(self.row(candidate))
            if rows[-1]["metrics"][metric] <= level:
                break
        return rows

    def with_bar(self, samples: SharedSamples, name: str) -> dict[str, Any]:
        """``measure`` with a bar of the images that this process has had, where somebody looks at it."""
        with self.screen.bar(name, len(samples.rows(self.size))) as bar:
            samples.seen = bar.advance
            return measure([self.judge], self.real, samples)  # type: ignore[arg-type]

    def halves(self) -> list[dict[str, Any]]:
        """The data's own row: random halves against each other, others with each seed; none if they are too few."""
        if self.real is None:
            return []
        judge, real, shared, tell = [self.judge], self.real, self.accelerator, self.screen.tell
        try:
            with noted(lambda line: tell(f"{FLOOR}: {line}")):
                floors: dict[int | None, dict[str, Any]] = {s: data_floor(judge, real, shared, s) for s in self.seeds}
        except ConfigError as error:
            tell(f"no {FLOOR}: {error}")
            return []
        return [over_seeds(FLOOR, None, None, floors)]
