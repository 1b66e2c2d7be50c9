"""The cells of few_steps.py: the JSON file that keeps them, a table, and pictures."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from dxmi.api.errors import require
from dxmi.evaluation.headline import steps_like

OURS = "ours"
FREE = [("teacher-unipc", steps) for steps in (2, 3, 4, 5, 6, 7, 8, 10)] + [("teacher-ddim", 50)]
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {  # the script of each, and what sets it apart
    "consistency": ("consistency", {}),
    "dmd2": ("dmd2", {}),
    "dmd2_no_critic": ("dmd2", {"critic": 0}),
    "critic": ("critic", {}),
    "regression": ("regression", {}),
    "sft_pg": ("sft_pg", {}),
}
FIGURES = {  # columns of the table; those with a floor show it
    "distance": "fd_digits",
    "shares right": "fd_digits_shares_right",
    "class tv": "class_tv",
    "recall": "recall",
    "nearest": "nearest_median",
}
COLOURS = {OURS: "black", "consistency": "tab:blue", "dmd2": "tab:red", "dmd2_no_critic": "tab:pink"}
COLOURS |= {"critic": "tab:green", "regression": "tab:purple", "sft_pg": "tab:brown"}


class Cell(NamedTuple):
    """One measurement."""

    method: str
    steps: int
    seed: int
    settings: tuple[str, ...] = ()
    """``key=value`` each, other than the rival's defaults"""

    @property
    def key(self) -> str:
        """Its name in the JSON file."""
        return "/".join([self.method, str(self.steps), str(self.seed), *self.settings])

    def folder(self, parent: Path) -> Path:
        """Where it leaves its pipeline and picture."""
        return parent / self.key.replace("/", "-")


class Results:
    """The finished cells, in a JSON file that is written after each; all were measured alike."""

    def __init__(self, path: Path):
        self.path = path
        self.kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"stamp": None, "cells": {}}

    def all(self, method: str, steps: int) -> list[dict[str, Any]]:
        """Cells of a method at a number of steps, with any settings."""
        return [c for c in self.kept["cells"].values() if (c["method"], c["steps"]) == (method, steps)]

    def best(self, method: str, steps: int) -> list[str]:
        """The settings that have the least distance with seed 0; the defaults where none were tried."""
        tried = [cell for cell in self.all(method, steps) if cell["seed"] == 0]
        return min(tried, key=lambda cell: cell["metrics"]["fd_digits"])["set"] if tried else []

    def cells(self, method: str, steps: int) -> list[dict[str, Any]]:
        """Those with the best settings, by seed."""
        best = self.best(method, steps)
        return sorted((c for c in self.all(method, steps) if c["set"] == best), key=lambda cell: cell["seed"])

    def keep(self, cell: Cell, result: dict[str, Any], seconds: float | None) -> None:
        """Add a cell. Raises ConfigError if it was measured by other versions or against other data than the rest."""
        stamp = {k: v for k, v in result.pop("stamp").items() if k not in ("seed", "noise", "samples", "prompts")}
        stamp |= {"samples": result["samples"]}
        known = self.kept["stamp"] or stamp
        apart = ", ".join(key for key in stamp if stamp[key] != known.get(key))
        require(not apart, self.path, f"its cells were measured otherwise: {apart}", "give another --out")
        self.kept["stamp"] = stamp
        about = {"method": cell.method, "set": list(cell.settings), "budget": seconds}
        self.kept["cells"][cell.key] = about | result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.kept, indent=1) + "\n")

    def has(self, cell: Cell, seconds: float | None) -> bool:
        """Whether a cell is there, of this budget."""
        found = self.kept["cells"].get(cell.key)
        return found is not None and found["budget"] == seconds


def table(results: Results) -> str:
    """Medians over seeds with all values, as Markdown; the free solvers and the data drawn again below."""
    lines = [f"| method | T | {' | '.join(FIGURES)} | like UniPC at | CPU-s |", f"|{'---|' * (len(FIGURES) + 4)}"]
    solver = {steps: middle(results.cells("teacher-unipc", steps), FIGURES["distance"]) for _, steps in FREE[:-1]}
    solver = {steps: distance for steps, distance in solver.items() if distance is not None}
    trained = [(method, steps) for steps in (1, 2, 4) for method in (OURS, *RIVALS)]
    for method, steps in trained + FREE:
        cells = results.cells(method, steps)
        if not cells:
            continue
        shown = [told(cells, figure) for figure in FIGURES.values()]
        distance = middle(cells, FIGURES["distance"])
        free = (method, steps) in FREE
        like = "" if free or not solver or distance is None else str(steps_like(distance, solver))
        seconds = "" if free else f"{statistics.median(cell['seconds'] for cell in cells):.0f}"
        tuned = f" ({', '.join(cells[0]['set'])})" if cells[0]["set"] else ""
        lines.append(f"| {method}{tuned} | {steps} | {' | '.join(shown)} | {like} | {seconds} |")
    everything = list(results.kept["cells"].values())
    again = [middle(everything, f"{figure}_floor") for figure in FIGURES.values()]
    again[-1] = middle(everything, "nearest_data_median")
    lines.append(f"| data drawn again | | {' | '.join('' if v is None else f'{v:.3g}' for v in again)} | | |")
    return "\n".join(lines)


def told(cells: list[dict[str, Any]], figure: str) -> str:
    """The median of a figure and, in brackets, its value with each seed."""
    values = [cell["metrics"][figure] for cell in cells]
    every = f" ({', '.join(f'{value:.3g}' for value in values)})" if len(values) > 1 else ""
    return f"{statistics.median(values):.3g}{every}"


def middle(cells: list[dict[str, Any]], figure: str) -> float | None:
    """The median of a figure; None where no cell has it."""
    values = [cell["metrics"][figure] for cell in cells if figure in cell["metrics"]]
    return statistics.median(values) if values else None


def picture(results: Results, path: Path) -> None:
    """Distance against calls of the network, medians with the range over seeds, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes, name = figure.subplots(), FIGURES["distance"]
    lines = {method: [1, 2, 4] for method in (OURS, *RIVALS)}
    lines |= {solver: [steps for method, steps in FREE if method == solver] for solver, _ in FREE}
    for method, all_steps in lines.items():
        found = [(steps, [c["metrics"][name] for c in results.cells(method, steps)]) for steps in all_steps]
        at = [(steps, statistics.median(values), min(values), max(values)) for steps, values in found if values]
        if not at:
            continue
        steps, medians, least, most = zip(*at, strict=True)
        bars = [[m - low for m, low in zip(medians, least, strict=True)]]
        bars += [[high - m for m, high in zip(medians, most, strict=True)]]
        style = {"ls": "--", "marker": "s"} if method in dict(FREE) else {"marker": "o"}
        colour = COLOURS.get(method, "tab:grey")
        axes.errorbar(steps, medians, yerr=bars, label=method, color=colour, capsize=2, ms=4, **style)
    floor = middle(list(results.kept["cells"].values()), f"{name}_floor")
    if floor is not None:
        axes.axhline(floor, color="grey", ls=":", label="data drawn again")
    axes.set(xscale="log", yscale="log", xlabel="calls of the network", ylabel=f"{name}, lower is better")
    axes.set_xticks([1, 2, 4, 10, 50], ["1", "2", "4", "10", "50"])
    axes.legend(fontsize=8, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def grid(results: Results, steps: int, folder: Path, path: Path) -> None:
    """The first samples of each method at a number of steps, a row each, as a PNG; those whose pictures are there."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    rows = {}
    for method in (OURS, *RIVALS, "teacher-unipc"):
        for cell in results.cells(method, steps)[:1]:
            kept = Cell(method, steps, cell["seed"], tuple(cell["set"])).folder(folder) / "samples.png"
            rows |= {method: kept} if kept.exists() else {}
    if not rows:
        return
    figure = Figure(figsize=(9, 0.55 * len(rows)), layout="constrained")
    for axes, (method, kept) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        axes.imshow(imread(kept), interpolation="nearest")
        axes.set_ylabel(method, rotation=0, ha="right", va="center", fontsize=8)
        axes.set(xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
