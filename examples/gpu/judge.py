"""Samples against the images: one draw, and the figures of every extractor."""

from __future__ import annotations

import time
from statistics import linear_regression
from typing import Any

from accelerate import Accelerator

from dxmi.api import ConfigError, Draw, Evaluator
from dxmi.config import build_plugin
from dxmi.data import Images
from dxmi.evaluation import draw_candidate, measure, noted
from dxmi.evaluation.headline import Like, steps_like

SEED = 0  # of all samples


class Judge:
    """``fidelity`` over several extractors on the same samples.

    Args:
        images: the reference
        extractors: as of ``fidelity``; what is not installed is left out
        samples: how many are drawn for each row
        accelerator: whose device draws

    Raises:
        ConfigError: none of the extractors can be had
    """

    def __init__(self, images: Images, extractors: list[str], samples: int, accelerator: Accelerator):
        self.images, self.samples, self.accelerator = images, samples, accelerator
        self.evaluators: list[Evaluator] = []
        self.notes: list[str] = []
        self.times: list[tuple[int, float]] = []
        for extractor in extractors:
            metrics = ["fid", "shares"] if extractor.endswith(".safetensors") else ["fid"]
            options = {"name": "fidelity", "extractor": extractor, "samples": samples, "metrics": metrics}
            try:
                self.evaluators.append(build_plugin(Evaluator, options, "evaluator"))  # type: ignore[type-abstract]
            except ConfigError as error:
                self.notes.append(str(error))
        if not self.evaluators:
            raise ConfigError("extractor", "; ".join(self.notes))

    def row(self, draw: Draw, name: str, steps: int) -> dict[str, Any]:
        """``{name, steps, nfe, samples, metrics}`` of what is drawn in that many calls of the network."""
        candidate, begin = draw_candidate(draw, name, steps, steps, self.accelerator), time.monotonic()
        with noted(self.note):
            row = candidate.row(measure(self.evaluators, self.images, candidate.samples(SEED)))
        self.times.append((steps, time.monotonic() - begin))
        return row

    def expects(self, steps: int) -> float:
        """Seconds that a row of so many steps should take, by those before; 0 where too little is known.

        The first row does not count: the reference is read for it.
        """
        known = self.times[1:]
        if len({of for of, _ in known}) < 2:
            return max((seconds * (steps + 1) / (of + 1) for of, seconds in known), default=0.0)
        slope, offset = linear_regression(*zip(*known, strict=True))
        return max(0.0, offset + slope * steps)

    def note(self, line: str) -> None:
        """Keep what the evaluators have to say, each line once."""
        if line not in self.notes:
            self.notes.append(line)


def likened(rows: list[dict[str, Any]], solver: str) -> dict[str, dict[str, str]]:
    """How many steps of a solver each other row is like, by its name and each Fréchet distance.

    Args:
        rows: as ``Judge.row`` gives them
        solver: the name of rows at several numbers of steps
    """
    found: dict[str, dict[str, str]] = {}
    for row in (row for row in rows if row["name"] != solver):
        for metric in (name for name in row["metrics"] if is_distance(name)):
            others = {r["steps"]: r["metrics"][metric] for r in rows if r["name"] == solver and metric in r["metrics"]}
            if others and min(row["metrics"][metric], *others.values()) > 0:
                like: Like = steps_like(row["metrics"][metric], others)
                found.setdefault(f"{row['name']} ({row['steps']} steps)", {})[metric] = str(like)
    return found


def is_distance(metric: str) -> bool:
    """Whether a figure is a Fréchet distance of samples, and no floor."""
    return metric.startswith("fd_") and "_floor" not in metric
