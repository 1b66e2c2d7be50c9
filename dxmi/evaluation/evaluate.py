"""``dxmi evaluate``: a pipeline, a run or stored images against a reference, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config.machine import check_processes
from dxmi.data import Images
from dxmi.evaluation.candidates import Candidate, candidates, solver_candidates, stored_candidate
from dxmi.evaluation.density_runs import density_report
from dxmi.evaluation.earlier_reports import earlier, joined, keep
from dxmi.evaluation.headline import distance_of, in_question, likened, too_coarse
from dxmi.evaluation.measure import Measurement, stamp
from dxmi.evaluation.options import EvaluateOptions, judging, published
from dxmi.evaluation.report import FLOOR, Report
from dxmi.evaluation.stored_images import Given, images
from dxmi.runs import Run

SEEDS = (0, 1, 2)


def evaluate(
    pipeline: Any,
    reference: Given | None = None,
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
    steps_like: str | None = None,
    out: str | Path | None = None,
) -> Report:
    """Measure samples of a pipeline, or stored images, against reference images: ``dxmi evaluate`` in Python.

    Args:
        pipeline: a loaded pipeline, its folder or hub id, a run, or stored images: a dataset or folder of images, such
            as {path: ..., split: test}, or uint8 (N,C,H,W). A loaded one is moved to the GPU if there is one
        reference: such stored images, or published statistics (.npz); None of a run on a known density, which is held
            against that density with ``metrics``, ``n`` paths and one seed alone, each by default the run's own
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
        label: column of labels, where there is one, for the accuracy of stored images, the floor's among them
        floor: other images of the same kind as the reference, such as a test set, for the row ``data-floor``; halves
            measures random halves of the reference against each other, None leaves the row out
        steps_like: of a run, a solver to draw from its teacher with, as unipc or ddim: in 2, 3, 4, 5, 6, 7, 8 and 10
            steps, until it is as good. The report then says how many steps of it the run is like, by interpolation
        out: folder for table.md, report.json, picture.png and the images, which the same call again takes up

    Raises:
        ConfigError: what is given is wrong; the key is the parameter's name, ``source`` of what ``pipeline`` is
        FloatingPointError: a sample is not finite
    """
    accelerator = Accelerator()
    check_processes(accelerator)
    options = EvaluateOptions(
        metrics=metrics,
        evaluator=evaluator,
        extractor=extractor,
        n=n,
        seeds=seeds,
        batch_size=batch_size,
        schedulers=schedulers,
        steps=steps,
        prompts=prompts,
        column=column,
        label=label,
        floor=floor,
        steps_like=steps_like,
        out=out,
    )
    run = Run.find(pipeline)
    if reference is None and run is not None and not run.has_images:
        return density_report(run, options)
    if reference is None:
        raise ConfigError("reference", "give what to measure against: a dataset, a folder or an .npz")
    return measured(pipeline, reference, options, accelerator)


def measured(source: Any, reference: Given, options: EvaluateOptions, accelerator: Accelerator) -> Report:
    """What ``evaluate`` gives."""
    statistics = published(reference)
    known = statistics is None or options.n is not None
    require(known, "n", "published statistics tell no number of samples", "give one")
    judge = options.judge(statistics)
    asked = candidates(source, options, accelerator)
    drawn = any(row.noise is not None for row in asked)
    solvers = solver_candidates(source, options, asked[0].shape, accelerator) if options.steps_like else []
    column, label = options.column, options.label
    real = None if statistics else images(reference, "reference", column, label, strict=drawn)
    others = floor_candidates(options, accelerator)
    check_alike([*asked, *others], real)
    seeds, size = options.seeds or SEEDS, options.n or len(real or ())
    what = {"name": Path(str(statistics)).name} if real is None else real.stamp()
    made = stamp(asked, [judge], what, list(seeds) if drawn else [], size)
    folder = options.folder
    wanted = [{"name": row.name, "steps": row.steps, "subject": row.made} for row in [*asked, *solvers]]
    before = None if folder is None else earlier(folder, wanted, made)
    work = Measurement(judge, real, seeds, size, accelerator)
    with judging(judge):
        floors = [work.row(candidate) for candidate in others]  # first, to fail before all is drawn
        rows = [work.row(candidate) for candidate in asked]
        if solvers:
            rows = likened([*rows, *until_as_good(work, solvers, rows)], len(rows))
    for line in too_coarse(in_question(rows), FLOOR):
        work.screen.tell(f"note: {line}")
    report = Report([*rows, *(work.halves() if options.halves else floors)], made | {"samples": rows[0]["samples"]})
    report = report if before is None else joined(report, before)
    if folder is not None and accelerator.is_main_process:
        keep(report, before, folder, work.screen.tell)
    return report


def until_as_good(
    work: Measurement, solvers: Sequence[Candidate], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of a solver in more and more steps, until it is as good as the best of ``rows``; none without a distance."""
    metric = distance_of(rows)
    if metric is None:
        work.screen.tell("note: steps_like: the evaluator measured no Fréchet distance first")
        return []
    return work.until(solvers, metric, min(row["metrics"][metric] for row in rows))


def floor_candidates(options: EvaluateOptions, accelerator: Accelerator) -> list[Candidate]:
    """The images that ``floor`` names, if it names some."""
    if options.floor is None or options.halves:
        return []
    return [stored_candidate(images(options.floor, "floor", options.column, options.label), FLOOR, accelerator)]


def check_alike(rows: Sequence[Candidate], real: Images | None) -> None:
    """Raise ConfigError if images differ in size from the reference's; published statistics have none."""
    if real is None:
        return
    for row in rows:
        sides, own = real.event_shape[1:], row.shape[1:]
        cure = f"give reference.size {own[-1]}" if own[0] == own[-1] else "give images of one size"
        require(sides == own, "reference", f"its images are {sides}, those of {row.name} {own} (H,W)", cure)
