"""``dxmi evaluate``: a pipeline, a run or stored images against a reference, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dxmi.api.errors import require
from dxmi.config.machine import check_processes
from dxmi.data.items import Images
from dxmi.evaluation.candidates import Candidate, DrawOptions, candidates, stored
from dxmi.evaluation.earlier_reports import earlier, joined, keep
from dxmi.evaluation.measure import Measurement, stamp
from dxmi.evaluation.options import built, check, check_lists, folder_of, published
from dxmi.evaluation.report import FLOOR, Report
from dxmi.evaluation.stored_images import Given, images

SEEDS = (0, 1, 2)


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
        label: column of labels, where there is one, for the accuracy of stored images, the floor's among them
        floor: other images of the same kind as the reference, such as a test set, for the row ``data-floor``; halves
            measures random halves of the reference against each other, None leaves the row out
        out: folder for table.md, report.json, picture.png and the images, which the same call again takes up

    Raises:
        ConfigError: what is given is wrong; the message says what, by the command's names of options
        FloatingPointError: a sample is not finite
    """
    accelerator = Accelerator()
    check_processes(accelerator)
    folder = None if out is None else folder_of(out)
    names = {"scheduler": schedulers, "prompt": prompts} | ({} if metrics is None else {"metrics": metrics})
    check_lists(names, {"seeds": seeds, "steps": steps})
    check(n, seeds, batch_size, steps)
    statistics = published(reference)
    require(statistics is None or n is not None, "n", "published statistics tell no number of samples", "give one")
    judge = built(evaluator, metrics=metrics, extractor=extractor, samples=n, reference_statistics=statistics)
    asked = DrawOptions(schedulers, steps, prompts, seeds, batch_size, column, label, folder)
    found, seeds = candidates(pipeline, asked, accelerator), seeds or SEEDS
    drawn = [subject.noise for subject in found if subject.noise is not None]
    real = None if statistics else images(reference, "reference", column, label, strict=bool(drawn))
    other, halves = [], isinstance(floor, str) and floor == "halves"
    if floor is not None and not halves:
        other = [stored(floor, DrawOptions(column=column, label=label), accelerator, "floor")._replace(name=FLOOR)]
    check_alike([*found, *other], real)
    told = {"name": Path(str(statistics)).name} if real is None else real.stamp()
    captions, size = found[0].made.get("prompts", []), n or len(real or ())
    made = stamp([judge], told, list(seeds) if drawn else [], size, drawn, captions)
    wanted = [{"name": subject.name, "steps": subject.steps, "subject": subject.made} for subject in found]
    before = None if folder is None else earlier(folder, wanted, made)
    work = Measurement(judge, real, seeds, size, accelerator)
    floors = [work.row(subject) for subject in other]  # first, to fail before all is drawn
    rows = [work.row(subject) for subject in found]
    report = Report([*rows, *(work.halves() if halves else floors)], made | {"samples": rows[0]["samples"]})
    report = report if before is None else joined(report, before)
    if folder is not None and accelerator.is_main_process:
        keep(report, before, folder, work.tell)
    return report


def check_alike(found: Sequence[Candidate], real: Images | None) -> None:
    """Raise ConfigError if images differ in size from the reference's."""
    for subject in found if real is not None else ():
        assert real is not None
        sides, own = real.event_shape[1:], subject.shape[1:]
        fix = f"give --reference.size {own[-1]}" if own[0] == own[-1] else "give images of one size"
        require(sides == own, "reference", f"its images are {sides}, those of {subject.name} {own} (H,W)", f"{fix}")
