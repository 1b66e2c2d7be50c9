"""What a run tells while it learns: metrics.jsonl, the tracker, grids of images."""

from __future__ import annotations

import json
import math

from torch import Tensor

from dxmi.chains import first_samples, no_log_weights, save_grid
from dxmi.runs.finished import can_be_drawn
from dxmi.training.finish_density import metrics
from dxmi.training.session import Session


def write(session: Session, step: int, values: dict[str, float]) -> None:
    """A line of metrics.jsonl, with null for what is not finite, and what is finite to the tracker."""
    finite = {k: v if math.isfinite(v) else None for k, v in values.items()}  # JSON has no infinity
    if session.main:
        with (session.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
    session.accelerator.log({k: v for k, v in finite.items() if v is not None}, step=step)


def log_round(session: Session, log: dict[str, Tensor], step: int, speed: float | None) -> str:
    """Write what a round found; what the progress bar says of it."""
    values = {k: float(v) for k, v in log.items()}
    if "e_data" in values:
        values["energy_gap"] = values["e_sample"] - values["e_data"]
    write(session, step, values)
    shown = "energy_gap" if "energy_gap" in values else "e_sample"
    return f"{f'{speed:.1f} rounds/s, ' if speed else ''}{shown.replace('_', ' ')} {values[shown]:+.3f}"


def look(session: Session, step: int) -> None:
    """A grid of the averaged sampler's images, always from the same noise; on a known density its log-weights."""
    run = session.run
    weighs = session.data is None and session.value_guided and not no_log_weights(run.sampler)
    if session.main and weighs:
        _, found = metrics(session, min(run.paths, 2000), seed=0)
        write(session, step, found)
        session.screen.tell(", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    if session.main and len(session.shape) == 3 and can_be_drawn(run):
        samples = first_samples([session.student()], 64, run.sampler.steps, seed=0, size=run.draw_batch)[0]
        save_grid(samples, session.out / "samples" / f"step-{step:06d}.png")
    session.accelerator.wait_for_everyone()
