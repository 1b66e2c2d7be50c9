"""What an evaluation found: rows of figures over seeds, and the stamp of what made them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from dxmi.artefacts import metric_label
from dxmi.dialect import differences
from dxmi.errors import ConfigError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

FLOOR = "data-floor"
HIDDEN = ("f_score", "accuracy/")  # of the table; the JSON has them


@dataclass
class Report:
    """Rows ``{name, steps, nfe, samples, metrics, spread, minimum, seeds}`` and the stamp, as ``report.json`` has them.

    ``metrics`` are means over seeds, ``spread`` standard deviations (n - 1) and ``minimum`` the smallest; ``seeds``
    holds each seed's own figures. ``nfe`` counts calls of the network for one sample.
    """

    rows: list[dict[str, Any]]
    stamp: dict[str, Any]

    def table(self) -> str:
        """Markdown: a row for each that was measured, mean +- spread over seeds and the minimum in brackets."""
        heading, *body = (f"| {' | '.join(row)} |" for row in cells(self.rows))
        return "\n".join([heading, "|" + "---|" * len(cells(self.rows)[0]), *body])

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
        drawn = [row for row in self.rows if row["nfe"] and row["metrics"].get(name, 0) > 0]
        require(bool(drawn), f"picture: no row has a positive {name} and network evaluations to draw it against")
        figure = Figure(figsize=(6, 4.2), layout="constrained")
        axes = figure.subplots()
        for label, group in groupby(sorted(drawn, key=lambda row: row["name"]), key=lambda row: row["name"]):
            points = sorted((row["nfe"], row["metrics"][name], row["spread"].get(name, 0)) for row in group)
            nfe, mean, spread = zip(*points, strict=True)
            axes.errorbar(nfe, mean, spread, marker="o", markersize=3, linewidth=1, capsize=2, label=label)
        for floor in (row["metrics"].get(name, 0) for row in self.rows if row["name"] == FLOOR):
            axes.axhline(floor, color="grey", linestyle="--", linewidth=1, label=FLOOR)
        axes.set(xscale="log", yscale="log", xlabel="network evaluations a sample")
        axes.set_ylabel(metric_label(name, self.rows[0]["samples"]))
        axes.legend(fontsize=8)
        return figure

    def show(self) -> Table:
        """The table for the screen."""
        from rich import box
        from rich.table import Table

        heading, *body = cells(self.rows)
        out = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        for column in heading:
            out.add_column(column, justify="right" if column else "left")
        for row in body:
            out.add_row(*row)
        if any("spread" in row and row["spread"] for row in self.rows):
            out.caption = "mean ±standard deviation over seeds (minimum)"
        return out

    def save(self, folder: Path) -> list[Path]:
        """report.json, table.md with the stamp, and picture.png where there are network evaluations to draw."""
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "report.json", folder / "table.md"]
        written[0].write_text(self.to_json() + "\n")
        stamp = json.dumps(self.stamp, indent=2)
        written[1].write_text(f"{self.table()}\n\nWhat the figures were made with:\n\n```json\n{stamp}\n```\n")
        try:
            figure = self.plot()
        except ConfigError:
            return written
        figure.savefig(folder / "picture.png", dpi=120)
        return [*written, folder / "picture.png"]


def over_seeds(
    name: str, steps: int | None, nfe: float | None, found: dict[int | None, dict[str, Any]]
) -> dict[str, Any]:
    """One row from what ``measure`` found with each seed."""
    runs = [row["metrics"] for row in found.values()]
    values = {m: [run[m] for run in runs] for m in runs[0] if all(m in run for run in runs)}
    several = len(runs) > 1
    return {
        "name": name,
        "steps": steps,
        "nfe": nfe,
        "samples": max(row["samples"] for row in found.values()),
        "metrics": {m: fmean(v) for m, v in values.items()},
        "spread": {m: stdev(v) for m, v in values.items()} if several else {},
        "minimum": {m: min(v) for m, v in values.items()},
        "seeds": {str(seed): row["metrics"] for seed, row in found.items() if seed is not None},
    }


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows as text, the heading first; of each seed's own spreads and of single classes the JSON alone tells."""
    metrics = dict.fromkeys(m for row in rows for m in row["metrics"])
    shown = [m for m in metrics if not m.endswith("_std") and not m.startswith(HIDDEN)]
    out = [["", "steps", "nfe", *(metric_label(m, rows[0]["samples"]) for m in shown)]]
    for row in rows:
        name = row["name"] if row["samples"] == rows[0]["samples"] else f"{row['name']} (n={row['samples']})"
        nfe = "" if row["nfe"] is None else f"{row['nfe']:g}"
        out.append([name, str(row["steps"] or ""), nfe, *(figure(row, m) for m in shown)])
    return out


def figure(row: dict[str, Any], metric: str) -> str:
    """Mean, spread and minimum as text."""
    if metric not in row["metrics"]:
        return ""
    mean, spread = f"{row['metrics'][metric]:.4g}", row.get("spread", {}).get(metric)
    return mean if spread is None else f"{mean} ±{spread:.2g} ({row['minimum'][metric]:.4g})"


def load_report(path: Path) -> Report:
    """What ``report.json`` or a run's ``evaluation.json`` holds.

    Raises:
        ConfigError: it holds none
    """
    try:
        found = json.loads(path.read_text())
        rows = [{"nfe": None, "spread": {}, **row} for row in found["rows"]]
        require(all({"name", "samples", "metrics", "steps"} <= row.keys() for row in rows) and bool(rows), "no rows")
        return Report(rows, dict(found["stamp"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"--compare: {path} holds no report of 'dxmi evaluate'") from error


def compared(first: Path, second: Path) -> Report:
    """The rows of two reports whose figures may be held against each other, named after their files or folders.

    Raises:
        ConfigError: one cannot be read, or their stamps or numbers of samples differ; the message says where
    """
    reports = load_report(first), load_report(second)
    told = [report.stamp | {"samples": report.rows[0]["samples"]} for report in reports]
    differing = differences(told[0], told[1])
    if differing:
        raise ConfigError(f"--compare: the two were not made alike: {'; '.join(differing)}")
    names = [path.stem for path in (first, second)]
    if names[0] == names[1]:
        names = [path.absolute().parent.name for path in (first, second)]
    both = zip(names, reports, strict=True)
    rows = [row | {"name": f"{name}: {row['name']}"} for name, report in both for row in report.rows]
    return Report(rows, reports[0].stamp)
