"""``dxmi evaluate``: a pipeline, a run or stored images against a reference, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from dxmi.api import Evaluator
from dxmi.config import build_plugin
from dxmi.errors import ConfigError, require
from dxmi.evaluation import data_floor, measure, noted, stamp
from dxmi.figures import metric_label
from dxmi.fitting import check_processes
from dxmi.items import Images
from dxmi.report import FLOOR, Report, over_seeds, refuse_other
from dxmi.stored import Given, images, path_of
from dxmi.subjects import Asked, Subject, stored, subjects

SEEDS = (0, 1, 2)
Row = dict[str, Any]
Tell = Callable[[str], None]


def evaluate(
    pipeline: Any,
    reference: Given,
    metrics: Sequence[str] | None = None,
    *,
    evaluator: str | dict[str, Any] = "fidelity",
    extractor: str | None = None,
    n: int | None = None,
    seeds: Sequence[int] = (),
    batch_size: int | None = None,
    schedulers: Sequence[str] = (),
    steps: Sequence[int] = (),
    prompts: Sequence[str] = (),
    column: str = "image",
    label: str | None = None,
    floor: Given | None = "halves",
    out: str | Path | None = None,
) -> Report:
    """Measure samples of a pipeline, or stored images, against reference images: ``dxmi evaluate`` in Python.

    Args:
        pipeline: a loaded pipeline, its folder or hub id, a run, or stored images: a dataset or folder of images, such
            as {path: ..., split: test}, or uint8 (N,C,H,W). A loaded one is moved to the GPU if there is one
        reference: such stored images, or published statistics (.npz)
        metrics: of the evaluator, as fid, kid, isc, prc, accuracy; None takes all that can be had
        evaluator: a plugin's name, or {name: ..., and its options}
        extractor: of the evaluator, what makes features of images
        n: number of samples, at least 2; None takes as many as the reference has
        seeds: each is a measurement, 0 <= seed < 2^32; empty takes 0, 1 and 2
        batch_size: images drawn at once, 64 if None; what they are does not depend on it
        schedulers: names of diffusers' classes in place of the pipeline's own: a row for each
        steps: numbers of steps, a row for each; empty takes the pipeline's usual one
        prompts: of pipelines that draw from text, taken in turn
        column: of the images, in datasets
        label: column of labels, where there is one, for the accuracy of stored images
        floor: other images of the same kind as the reference, such as a test set, for the row ``data-floor``; halves
            measures random halves of the reference against each other, None leaves the row out
        out: folder for table.md, report.json, picture.png and the images, which the same call again takes up

    Raises:
        ConfigError: what is given is wrong; the message says what, by the command's names of options
        FloatingPointError: a sample is not finite
    """
    accelerator, folder = Accelerator(), None if out is None else Path(out)
    check_processes(accelerator)
    check(n, seeds, batch_size, steps, folder)
    different(seeds=seeds, steps=steps, scheduler=schedulers)
    published = str(path_of(reference)).endswith(".npz")
    extra = set(reference) - {"path"} if published and isinstance(reference, Mapping) else set()
    require(not extra, f"--reference.{''.join(sorted(extra)[:1])}: published statistics have no options; leave it out")
    require(not published or n is not None, "-n: published statistics do not say how many samples to draw; give 50000")
    options = {"metrics": None if metrics is None else list(metrics), "extractor": extractor, "samples": n}
    options["reference_statistics"] = str(path_of(reference)) if published else None
    judge = built(evaluator, {key: value for key, value in options.items() if value is not None})
    asked = Asked(schedulers, steps, prompts, seeds, batch_size, column, label, folder)
    found, seeds = subjects(pipeline, asked, accelerator), seeds or SEEDS
    drawn = [subject.noise for subject in found if subject.noise is not None]
    real = None if published else images(reference, "reference", column, label, strict=bool(drawn))
    halves = isinstance(floor, str) and floor == "halves"
    other = []
    if floor is not None and not halves:
        other = [stored(floor, Asked(column=column, label=label), accelerator, "floor")._replace(name=FLOOR)]
    check_alike([*found, *other], real)
    told = {"name": Path(str(path_of(reference))).name} if real is None else real.stamp()
    captions, size = found[0].made.get("prompts", []), n or len(real or ())
    made = stamp([judge], told, list(seeds) if drawn else [], size, drawn, captions)
    if folder is not None:
        refuse_other(folder, [{"name": s.name, "steps": s.steps, "subject": s.made} for s in found], made)
    console = Console(stderr=True, quiet=not accelerator.is_main_process)
    tell = partial(console.print, style="dim", highlight=False, soft_wrap=True)
    floors = [measured(subject, judge, real, seeds, tell) for subject in other]  # first, to fail before all is drawn
    rows = [measured(subject, judge, real, seeds, tell) for subject in found]
    if halves and real is not None:
        floors = halved(judge, real, seeds, accelerator, tell)
    report = Report([*rows, *floors], made | {"samples": rows[0]["samples"]})
    if folder is not None and accelerator.is_main_process:
        report.save(folder)
    return report


def check(n: int | None, seeds: Sequence[int], batch_size: int | None, steps: Sequence[int], out: Path | None) -> None:
    """Raise ConfigError for numbers that mean nothing."""
    require(n is None or n >= 2, "-n: give at least 2")
    require(all(0 <= seed < 2**32 for seed in seeds), f"--seeds: {list(seeds)} are not all between 0 and 2^32 - 1")
    require(batch_size is None or batch_size >= 1, f"--batch-size: {batch_size} is not positive")
    require(all(k >= 1 for k in steps), f"--steps: {list(steps)} are not all positive")
    for part in [] if out is None else [out, *out.parents]:
        require(not part.exists() or part.is_dir(), f"--out: {part} is a file; give a folder")


def different(**given: Sequence[Any]) -> None:
    """Raise ConfigError if one of these lists has something twice."""
    for flag, values in given.items():
        require(len(set(values)) == len(values), f"--{flag}: {', '.join(map(str, values))} are not different ones")


def check_alike(found: Sequence[Subject], real: Images | None) -> None:
    """Raise ConfigError if images differ in size from the reference's."""
    for subject in found if real is not None else ():
        assert real is not None
        sides, own = real.event_shape[1:], subject.shape[1:]
        fix = f"give --reference.size {own[-1]}" if own[0] == own[-1] else "give images of one size"
        require(sides == own, f"reference: its images are {sides}, those of {subject.name} {own} (H,W); {fix}")


def built(evaluator: str | dict[str, Any], options: dict[str, Any]) -> Evaluator:
    """The evaluator with the options that were given, which have to be its own.

    Raises:
        ConfigError: there is no such evaluator, or it has no such option
    """
    plugin = {"name": evaluator} if isinstance(evaluator, str) else evaluator
    return build_plugin(Evaluator, {**plugin, **options})  # type: ignore[type-abstract]


def measured(subject: Subject, judge: Evaluator, real: Images | None, seeds: Sequence[int], tell: Tell) -> Row:
    """A row: one measurement for each seed, or a single one of what is stored."""
    found: dict[int | None, dict[str, Any]] = {}
    for seed in seeds if subject.noise is not None else (None,):
        with noted(None if found else tell):  # every seed has the same to say
            found[seed] = measure([judge], real, subject.samples(seed))  # type: ignore[arg-type]
        first, value = next(iter(found[seed]["metrics"].items()))
        at = "" if subject.steps is None else f", {subject.steps} steps, seed {seed}"
        label = metric_label(first, found[seed]["samples"])
        tell(f"{subject.name}{at}: {label} {value:.4g}")
    return over_seeds(subject.name, subject.steps, subject.nfe, found) | {"subject": subject.made}


def halved(judge: Evaluator, real: Images, seeds: Sequence[int], accelerator: Accelerator, tell: Tell) -> list[Row]:
    """The data's own row: random halves against each other, others with each seed; none if they are too few."""
    try:
        with noted(lambda line: tell(f"{FLOOR}: {line}")):
            found: dict[int | None, Row] = {s: data_floor([judge], real, accelerator, s) for s in seeds}
    except ConfigError as error:
        tell(f"no {FLOOR}: {error}")
        return []
    return [over_seeds(FLOOR, None, None, found)]
