"""``dxmi evaluate RUN`` of a run on a known density."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dxmi.api import ConfigError, Evaluator
from dxmi.chains import LOG_WEIGHTS, drawn_figures, require_log_weights
from dxmi.config import TrainConfig, build_plugin, plugins
from dxmi.evaluation.density_figures import density_floor, density_stamp, halves, student_row
from dxmi.runs.folder import Run

EVALUATOR = "densities"  # what 'dxmi evaluate' takes where a run names no evaluators


def evaluate_density_run(
    folder: Path, n: int | None = None, seed: int | None = None, wanted: list[str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What ``evaluation.json`` would hold, made again, and notes on what could not be had.

    n: number of paths, seed: of all noise; the run's own where they are None.
    wanted: figures of log-weights, and metrics of the evaluator ``densities``; None takes all that can be had.

    Raises:
        ConfigError: the folder holds no finished run on a known density, or a figure asked for cannot be had
    """
    source = Run(folder)
    if source.kind != "density":
        source.require_finished()
        raise ConfigError(folder, "is a run on data, whose figures 'dxmi train' leaves in evaluation.json")
    run, cost, *_ = source.finished()
    n, seed = n or run.paths, run.seed if seed is None else seed
    evaluators, notes, parts, floor = chosen(run, source, wanted), [], None, None
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
    drawn, figures, more = drawn_figures(run.sampler, cost, n, seed)
    if wanted is not None:
        figures, more = {name: figures[name] for name in wanted if name in figures}, []
    rows = [student_row(drawn, figures, run.sampler.steps, evaluators, parts), *([] if floor is None else [floor])]
    return {"rows": rows, "stamp": density_stamp(evaluators, run.energy, parts, seed)}, [*more, *notes]


def chosen(run: TrainConfig, source: Run, wanted: list[str] | None) -> list[Evaluator]:
    """The run's evaluators, or ``densities`` where it names none or certain metrics are wanted."""
    if wanted is None:
        return run.evaluators or [build_plugin(Evaluator, EVALUATOR)]  # type: ignore[type-abstract]
    known = (*LOG_WEIGHTS, *plugins.load("dxmi.evaluators", EVALUATOR).METRICS)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError("metrics", f"'{unknown[0]}' is none of {', '.join(known)}")
    distances = [name for name in wanted if name not in LOG_WEIGHTS]
    named: list[Any] = source.config.get("evaluators") or []
    given = next((e for e in named if isinstance(e, dict) and e["name"] == EVALUATOR), {"name": EVALUATOR})
    return [build_plugin(Evaluator, {**given, "metrics": distances})] if distances else []  # type: ignore[type-abstract]
