"""``dxmi evaluate``: a pipeline, a run or stored images against a reference, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from torch.utils.data import Dataset

from dxmi.api import ConfigError, Evaluator
from dxmi.artefacts import metric_label
from dxmi.config import build_plugin
from dxmi.errors import require
from dxmi.evaluation import data_floor, measure, noted, stamp
from dxmi.fitting import check_processes
from dxmi.report import Report, over_seeds
from dxmi.subjects import Asked, Subject, images, subjects

SEEDS = (0, 1, 2)


def evaluate(
    pipeline: Any,
    reference: str | Path,
    metrics: Sequence[str] | None = None,
    *,
    evaluator: str | dict[str, Any] = "fidelity",
    extractor: str | None = None,
    n: int | None = None,
    seeds: Sequence[int] = SEEDS,
    batch_size: int = 64,
    schedulers: Sequence[str] = (),
    steps: Sequence[int] = (),
    prompts: Sequence[str] = (),
    column: str = "image",
    label: str | None = None,
    out: str | Path | None = None,
) -> Report:
    """Measure samples against reference images; see ``dxmi.evaluate``."""
    accelerator, folder = Accelerator(), None if out is None else Path(out)
    check_processes(accelerator)
    check(n, seeds, batch_size, steps, folder)
    published = str(reference).endswith(".npz")
    require(not published or n is not None, f"-n: {reference} does not say how many samples to draw; give 50000")
    options = {
        "metrics": None if metrics is None else list(metrics),
        "extractor": extractor,
        "samples": n,
        "reference_statistics": str(reference) if published else None,
    }
    judge = built(evaluator, {key: value for key, value in options.items() if value is not None})
    real = None if published else images(str(reference), column, label)
    asked = Asked(schedulers, steps, prompts, batch_size, folder)
    found = subjects(pipeline, column, label, asked, accelerator)
    console = Console(stderr=True, quiet=not accelerator.is_main_process)
    rows = [measured(subject, judge, real, seeds, console) for subject in found]
    if real is not None:
        try:
            with noted(None):
                floor = data_floor([judge], real, accelerator)
        except ConfigError as error:
            console.print(f"no floor: {error}", style="dim")
        else:
            rows.append(over_seeds("data-floor", None, None, {None: floor}))
    told = {"name": Path(reference).name} if real is None else real.stamp()
    drawn = [subject.noise for subject in found if subject.noise is not None]
    made = stamp([judge], told, list(seeds) if drawn else [], drawn)
    report = Report(rows, made | {"samples": rows[0]["samples"]})
    if folder is not None and accelerator.is_main_process:
        report.save(folder)
    return report


def check(n: int | None, seeds: Sequence[int], batch_size: int, steps: Sequence[int], out: Path | None) -> None:
    """Raise ConfigError for numbers that mean nothing."""
    require(n is None or n >= 2, "-n: give at least 2")
    require(len(set(seeds)) == len(seeds) > 0, f"--seeds: {list(seeds)} are not different ones; give some, as 0,1,2")
    require(all(0 <= seed < 2**32 for seed in seeds), f"--seeds: {list(seeds)} are not all between 0 and 2^32 - 1")
    require(batch_size >= 1, f"--batch-size: {batch_size} is not positive")
    require(all(k >= 1 for k in steps), f"--steps: {list(steps)} are not all positive")
    require(out is None or not out.is_file(), f"--out: {out} is a file; give a folder")


def built(evaluator: str | dict[str, Any], options: dict[str, Any]) -> Evaluator:
    """The evaluator with the options that were given, which have to be its own.

    Raises:
        ConfigError: there is no such evaluator, or it has no such option
    """
    plugin = {"name": evaluator} if isinstance(evaluator, str) else evaluator
    return build_plugin(Evaluator, {**plugin, **options})  # type: ignore[type-abstract]


def measured(
    subject: Subject, judge: Evaluator, real: Dataset[Any] | None, seeds: Sequence[int], console: Console
) -> dict[str, Any]:
    """A row: one measurement for each seed, or a single one of what is stored."""
    found: dict[int | None, dict[str, Any]] = {}
    tell = partial(console.print, style="dim", highlight=False)
    for seed in seeds if subject.noise is not None else (None,):
        with noted(None if found else tell):  # every seed has the same to say
            found[seed] = measure([judge], real, subject.samples(seed))  # type: ignore[arg-type]
        first, value = next(iter(found[seed]["metrics"].items()))
        at = "" if subject.steps is None else f", {subject.steps} steps, seed {seed}"
        label = metric_label(first, found[seed]["samples"])
        tell(f"{subject.name}{at}: {label} {value:.4g}")
    return over_seeds(subject.name, subject.steps, subject.nfe, found)
