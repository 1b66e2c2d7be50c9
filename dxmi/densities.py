"""Runs on a known density: their log-weights while they learn, their products, and using those again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor

from dxmi import artefacts, plugins
from dxmi.api import ConfigError, Cost, Energy, Evaluator, Sampler
from dxmi.assess import (
    LOG_WEIGHTS,
    density_floor,
    drawn_figures,
    halves,
    log_weight_figures,
    require_log_weights,
    show,
    stamp,
    student_row,
)
from dxmi.chains import Drawn, energies_of
from dxmi.config import Checked, Run, build_plugin
from dxmi.dialect import read
from dxmi.pictures import save_picture, save_training, save_values
from dxmi.weights import Weighted

if TYPE_CHECKING:
    from dxmi.train import Session

EVALUATOR = "densities"  # what 'dxmi evaluate' takes where a run names no evaluators


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
            artefacts.save_energy(value, session.config.resolved["value"], steps, session.out / "value")
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
    written = {"rows": rows, "stamp": stamp(run.evaluators, run.energy, parts, run.seed)}
    (out / "evaluation.json").write_text(json.dumps(written, indent=2) + "\n")
    save_picture(run.energy, Drawn(drawn.samples, energies, none, none, {}), out / "picture.png", sampler.tau)
    save_values(sampler, cost, out / "values.png")
    save_training(out / "metrics.jsonl", out / "training.png")
    show(rows)


def tensors(drawn: Weighted) -> dict[str, Tensor]:
    """What a file of samples holds: log-weights only where there are some."""
    found = {"samples": drawn.samples.contiguous().cpu()}
    return found | {"log_w": drawn.log_w.cpu()} if len(drawn.log_w) else found


def load_density_run(folder: Path) -> tuple[Energy, Sampler, Cost]:
    """The density, the learned sampler and the cost to go of a run.

    Raises:
        ConfigError: the folder holds no finished run on a known density
    """
    run, cost = load_run(folder)
    return run.energy, run.sampler, cost


def load_run(folder: Path) -> tuple[Run, Cost]:
    """A finished run on a known density with what it learned, and the cost to go that its sampler follows.

    Raises:
        ConfigError: the folder holds none
    """
    try:
        config = read(folder / "run.yaml")
        if "chains" in config:
            raise ConfigError(f"{folder}: holds chains, whose figures 'dxmi sample' leaves in diagnostics.json")
        if config.get("data") is not None:
            raise ConfigError(f"{folder}: is a run on data, whose figures 'dxmi train' leaves in evaluation.json")
        run = Checked(Run, config).build()
        load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
        if run.value is not None:
            run.value.load_state_dict(load_file(folder / "value" / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: holds no finished run on a known density") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in filter(None, (run.energy, run.sampler, run.value)):
        module.to(device)
    return run, Cost(run.energy, run.value, run.sampler.eval().steps)


def sample_density_run(folder: Path, n: int, seed: int) -> dict[str, Tensor]:
    """N samples of a run on a known density, with log-weights where its steps have some.

    Raises:
        ConfigError: as ``load_density_run``
    """
    _, sampler, cost = load_density_run(folder)
    return tensors(drawn_figures(sampler, cost, n, seed)[0])


def evaluate_density_run(
    folder: Path, n: int | None = None, seed: int | None = None, wanted: list[str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What ``evaluation.json`` would hold, made again, and notes on what could not be had.

    n: number of paths, seed: of all noise; the run's own where they are None.
    wanted: figures of log-weights, and metrics of the evaluator ``densities``; None takes all that can be had.

    Raises:
        ConfigError: the folder holds no finished run on a known density, or a figure asked for cannot be had
    """
    run, cost = load_run(folder)
    n, seed = n or run.paths, run.seed if seed is None else seed
    evaluators, notes, parts, floor = chosen(run, folder, wanted), [], None, None
    require_log_weights([name for name in wanted or () if name in LOG_WEIGHTS], run.sampler, run.energy)
    if evaluators:
        try:
            parts = halves(run.energy, run.sampler.tau, n, seed)
        except ConfigError as error:
            if wanted is not None:
                raise
            notes.append(f"no distances: {error}")
        else:
            floor = density_floor(evaluators, parts)
    drawn, found, more = drawn_figures(run.sampler, cost, n, seed)
    if wanted is not None:
        found, more = {name: found[name] for name in wanted if name in found}, []
    rows = [student_row(drawn, found, run.sampler.steps, evaluators, parts), *([] if floor is None else [floor])]
    return {"rows": rows, "stamp": stamp(evaluators, run.energy, parts, seed)}, [*more, *notes]


def chosen(run: Run, folder: Path, wanted: list[str] | None) -> list[Evaluator]:
    """The run's evaluators, or ``densities`` where it names none or certain metrics are wanted."""
    if wanted is None:
        return run.evaluators or [build_plugin(Evaluator, EVALUATOR)]  # type: ignore[type-abstract]
    known = (*LOG_WEIGHTS, *plugins.load("dxmi.evaluators", EVALUATOR).METRICS)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"--metrics: '{unknown[0]}' is none of {', '.join(known)}")
    distances = [name for name in wanted if name not in LOG_WEIGHTS]
    named: list[Any] = read(folder / "run.yaml").get("evaluators") or []
    given = next((e for e in named if isinstance(e, dict) and e["name"] == EVALUATOR), {"name": EVALUATOR})
    return [build_plugin(Evaluator, {**given, "metrics": distances})] if distances else []  # type: ignore[type-abstract]
