"""All students beside the teacher under UniPC at some numbers of steps, and under DDIM at many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from job import Job
from train_teacher import UNIPC, solver

from dxmi.api import Draw
from dxmi.pipelines import PipelineDraw, load_pipeline

DDIM = "DDIMScheduler"


def evaluate_part(job: Job) -> dict[str, Any]:
    """Measure row by row what there is time for; what a row takes is told by those before."""
    skipped: dict[str, str] = {}
    known = {(row["name"], row["steps"]) for row in job.rows}
    for name, steps, draw in asked(job):
        if (name, steps) in known:
            continue
        called = f"{name}, {steps} steps"
        if job.judge.expects(steps) > job.budget.left("evaluate"):
            skipped[called] = "no time"
            continue
        try:
            job.rows.append(job.judge.row(draw, name, steps))
        except Exception as error:  # the other rows go on
            skipped[called] = f"{type(error).__name__}: {error}"
    stamps = [evaluator.stamp() for evaluator in job.judge.evaluators]
    failed = [f"{called}: {why}" for called, why in skipped.items() if why != "no time"]
    return {"skipped": skipped, "notes": job.judge.notes, "stamps": stamps, "error": "; ".join(failed) or None}


def asked(job: Job) -> Iterator[tuple[str, int, Draw]]:
    """Name, steps and draw of each row, the most wanted first."""
    for name, folder in job.students.items():
        draw = PipelineDraw(load_pipeline(str(folder)), job.device, name=f"student {name}")
        yield f"student {name}", draw.usual_steps(), draw
    unipc = solver(job, UNIPC)
    wanted = sorted(job.sizes.unipc, key=lambda steps: (steps % 2, steps))
    yield from (("unipc", steps, unipc) for steps in wanted)
    yield "ddim", job.sizes.ddim, solver(job, DDIM)
