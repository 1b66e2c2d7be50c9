"""What an evaluation found: rows of figures, as tables and a picture, and the stamp of what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.api.files import whole_file
from dxmi.evaluation.tables import markdown, metric_label, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = "data-floor"


@dataclass
class Report:
    """Rows ``{name, steps, nfe, samples, metrics, spread, minimum, seeds, subject}`` and the stamp, as in report.json.

    ``metrics`` are means over seeds, ``spread`` standard deviations (n - 1) and ``minimum`` the smallest; ``seeds``
    holds each seed's own figures. ``nfe`` counts calls of the network for one sample, ``subject`` says what was
    measured. The rows of a run's ``evaluation.json`` have neither seeds nor a subject. ``steps_like`` says how many
    steps of which solver a row is like, where that was measured.
    """

    rows: list[dict[str, Any]]
    stamp: dict[str, Any]

    def table(self) -> str:
        """Markdown: a row for each that was measured, mean +- spread over seeds and the minimum in brackets.

        Last comes the data's own if they are drawn again, and below what the first row is like, where both are known.
        """
        return markdown(self.rows)

    def show(self) -> None:
        """The same on the screen."""
        show(self.rows)

    def to_json(self) -> str:
        """The rows and the stamp."""
        return json.dumps({"rows": self.rows, "stamp": self.stamp}, indent=2)

    def plot(self) -> Figure:
        """The first metric against network evaluations on log axes, a line for each solver, the floor dashed.

        Raises:
            ConfigError: no row tells its network evaluations
        """
        from matplotlib.figure import Figure

        name = next(iter(self.rows[0]["metrics"]))
        shown = [row for row in self.rows if row["metrics"].get(name, 0) > 0]  # on log axes
        drawn = [row for row in shown if row["nfe"]]
        require(bool(drawn), "picture", f"no row has a positive {name} and network evaluations to draw it against")
        figure = Figure(figsize=(6, 4.2), layout="constrained")
        axes = figure.subplots()
        for label, group in groupby(sorted(drawn, key=lambda row: row["name"]), key=lambda row: row["name"]):
            points = sorted((row["nfe"], row["metrics"][name], row["spread"].get(name, 0)) for row in group)
            nfe, mean, spread = zip(*points, strict=True)
            axes.errorbar(nfe, mean, spread, marker="o", markersize=3, linewidth=1, capsize=2, label=label)
        for floor in (row for row in shown if row["name"] == FLOOR):
            label = f"{FLOOR}, n={floor['samples']}"
            axes.axhline(floor["metrics"][name], color="grey", linestyle="--", linewidth=1, label=label)
        n = self.rows[0]["samples"]
        axes.set(xscale="log", yscale="log", xlabel="network evaluations a sample")
        ticks = sorted({row["nfe"] for row in drawn})
        if len(ticks) <= 10:
            axes.set_xticks(ticks, [f"{nfe:g}" for nfe in ticks])
            axes.set_xticks([], minor=True)
        axes.set_ylabel(f"{metric_label(name, n)}, n={n}")
        axes.legend(fontsize=8)
        return figure

    def save(self, folder: Path) -> list[Path]:
        """report.json, table.md with the stamp, and picture.png where there are network evaluations to draw.

        Each is written whole or not at all; a picture of before goes where there is none to draw.
        """
        data, text, picture = (folder / name for name in ("report.json", "table.md", "picture.png"))
        stamp = json.dumps(self.stamp, indent=2)
        with whole_file(data) as draft:
            draft.write_text(self.to_json() + "\n")
        with whole_file(text) as draft:
            draft.write_text(f"{self.table()}\n\nWhat the figures were made with:\n\n```json\n{stamp}\n```\n")
        try:
            figure = self.plot()
        except ConfigError:
            picture.unlink(missing_ok=True)
            return [data, text]
        with whole_file(picture) as draft:
            figure.savefig(draft, dpi=120)
        return [data, text, picture]


def over_seeds(
    name: str, steps: int | None, nfe: float | None, figures: Mapping[int | None, dict[str, Any]]
) -> dict[str, Any]:
    """One row from the ``figures`` of ``measure`` with each seed: means, spreads and minima."""
    runs = [row["metrics"] for row in figures.values()]
    values = {m: [run[m] for run in runs] for m in runs[0] if all(m in run for run in runs)}
    several = len(runs) > 1
    return {
        "name": name,
        "steps": steps,
        "nfe": nfe,
        "samples": max(row["samples"] for row in figures.values()),
        "metrics": {m: fmean(v) for m, v in values.items()},
        "spread": {m: stdev(v) for m, v in values.items()} if several else {},
        "minimum": {m: min(v) for m, v in values.items()},
        "seeds": {str(seed): row["metrics"] for seed, row in figures.items() if seed is not None},
    }
