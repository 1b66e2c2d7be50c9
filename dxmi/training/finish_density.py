"""The end of a run on a known density: its products and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dxmi.api import Cost
from dxmi.chains import (
    ChainSamples,
    Weighted,
    drawn_figures,
    energies_of,
    log_weight_figures,
    save_picture,
    save_values,
    tensors,
)
from dxmi.evaluation import density_stamp, halves, show_density, student_row
from dxmi.runs.energy import save_energy
from dxmi.training.session import Session


def averaged_cost(session: Session) -> Cost:
    """The cost to go that a run's averaged sampler follows."""
    return Cost(session.run.energy, session.averaged_value(), session.run.sampler.steps)


def metrics(session: Session, n: int, seed: int) -> tuple[Weighted, dict[str, float]]:
    """Weighted samples of a run's averaged sampler and the estimates of MATH (4.8)."""
    return log_weight_figures(session.average(), averaged_cost(session), n, seed)


def finish_density(session: Session, floor: dict[str, Any] | None) -> None:
    """Write sampler/, value/, samples.safetensors, the pictures and evaluation.json of a run on a known density."""
    if session.main:
        session.average().save_pretrained(session.out / "sampler")
        value = session.averaged_value()
        if value is not None:
            steps = session.run.sampler.steps
            save_energy(value, session.config.resolved["value"], steps, session.out / "value")
        report(session, floor)
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()


def report(session: Session, floor: dict[str, Any] | None) -> None:
    """Samples, pictures, figures, and the figures on the screen.

    Raises:
        FloatingPointError: a sample or its energy is not finite; the samples are written before
    """
    run, out, sampler, cost = session.run, session.out, session.average().eval(), averaged_cost(session)
    drawn, found, _ = drawn_figures(sampler, cost, run.paths, run.seed)
    save_file(tensors(drawn), out / "samples.safetensors")
    energies, none = energies_of(run.energy, drawn.samples), drawn.samples.new_empty(0)
    bad = int((~(energies.isfinite() & drawn.samples.flatten(1).isfinite().all(1))).sum())
    if bad:
        raise FloatingPointError(
            f"{bad} of {run.paths} samples or their energies are not finite, so there are no figures"
        )
    parts = halves(run.energy, sampler.tau, run.paths, run.seed) if run.evaluators else None
    rows = [student_row(drawn, found, sampler.steps, run.evaluators, parts), *([] if floor is None else [floor])]
    written = {"rows": rows, "stamp": density_stamp(run.evaluators, run.energy, parts, run.seed)}
    (out / "evaluation.json").write_text(json.dumps(written, indent=2) + "\n")
    save_picture(run.energy, ChainSamples(drawn.samples, energies, none, none, {}), out / "picture.png", sampler.tau)
    save_values(sampler, cost, out / "values.png")
    save_training(out / "metrics.jsonl", out / "training.png")
    show_density(rows)


def save_training(metrics: Path, path: Path) -> None:
    """One PNG from metrics.jsonl: ESS and log Z over the rounds; no file where no log-weights were taken."""
    from matplotlib.figure import Figure

    lines = [line for line in map(json.loads, metrics.read_text().splitlines()) if "ess" in line]
    if not lines:
        return
    rounds = [line["step"] for line in lines]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rounds, [line["ess"] for line in lines], ".-")
    left.set(title="effective sample size", xlabel="round", ylim=(0, 1))
    names = [name for name in ("elbo", "log_z", "eubo") if name in lines[0]]
    for name in names:
        right.plot(rounds, [line[name] for line in lines], ".-", label=name)
    exact = lines[-1].get("log_z_exact")
    if exact is not None:
        right.axhline(exact, color="black", linewidth=0.8, label="log_z_exact")
        reach = 2 * max(abs(lines[-1][name] - exact) for name in names)  # wild first rounds shall not flatten the last
        if 0 < reach < math.inf:
            right.set_ylim(exact - reach, exact + reach)
    right.set(title="log Z and its bounds", xlabel="round")
    right.legend()
    figure.savefig(path, dpi=110)
