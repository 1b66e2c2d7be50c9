"""``dxmi evaluate RUN`` of a run on a known density."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from dxmi.api import ConfigError, Evaluator
from dxmi.api.errors import require
from dxmi.chains import LOG_WEIGHTS, drawn_figures, require_log_weights
from dxmi.config import TrainConfig, build_plugin, plugins
from dxmi.evaluation.density_figures import density_floor, density_stamp, halves, student_row
from dxmi.evaluation.options import EvaluateOptions
from dxmi.evaluation.report import Report
from dxmi.runs import Run

EVALUATOR = "densities"  # what 'dxmi evaluate' takes where a run names no evaluators


def density_report(source: Run, options: EvaluateOptions) -> Report:
    """What ``evaluation.json`` of a run on a known density would hold, made again; what cannot be had is a warning.

    Of the options ``metrics`` names figures of log-weights and metrics of the evaluator ``densities``, ``n`` is the
    number of paths, and ``seeds`` holds one at most.

    Raises:
        ConfigError: the run is not finished, or was asked for what it cannot give
    """
    require_density(source)
    why = f"{source.folder} is a run on a known density"
    for field in fields(options):
        usual = field.name in ("metrics", "n", "seeds") or getattr(options, field.name) == field.default
        require(usual, field.name, why, "leave it out")
    require(len(options.seeds) <= 1, "seeds", f"{why}, and its paths have one", "give one at most")
    run, cost, *_ = source.finished()
    n, seed = options.n or run.paths, next(iter(options.seeds), run.seed)
    wanted = None if options.metrics is None else list(options.metrics)
    evaluators, parts, floor = chosen(run, source, wanted), None, None
    require_log_weights([name for name in wanted or () if name in LOG_WEIGHTS], run.sampler, run.energy)
    if evaluators:
        try:
            parts = halves(run.energy, run.sampler.tau, n, seed)
        except ConfigError as error:
            if wanted is not None:
                raise
            warnings.warn(f"no distances: {error}", stacklevel=2)
        else:
            floor = density_floor(evaluators, parts)
    drawn, figures, notes = drawn_figures(run.sampler, cost, n, seed)
    if wanted is not None:
        figures, notes = {name: figures[name] for name in wanted if name in figures}, []
    for note in notes:
        warnings.warn(note, stacklevel=2)
    rows = [student_row(drawn, figures, run.sampler.steps, evaluators, parts), *([] if floor is None else [floor])]
    return Report(rows, density_stamp(evaluators, run.energy, parts, seed))


def require_density(source: Run) -> None:
    """Raise ConfigError, which says where its figures are, unless it is a finished run on a known density."""
    if source.kind == "chains":
        raise ConfigError(source.folder, "holds chains, whose figures 'dxmi sample' leaves in diagnostics.json")
    source.require_finished()
    if source.kind != "density":
        raise ConfigError(source.folder, "is a run on data, whose figures 'dxmi train' leaves in evaluation.json")


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
