"""Rows of figures as tables: Markdown, and for the screen. Every row tells its number of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from dxmi.evaluation.headline import AGAIN, headlines
from dxmi.screen import show as show_table

ENOUGH = 50_000  # samples of a Fréchet distance; one over fewer says so


HIDDEN = ("f_score", "accuracy/", "class_share_")  # of tables; the JSON has them


DRAWN_AGAIN = "data drawn again"
"""the row of what as many of the data's own would get, which is no row of the report: figures have it beside them"""


def metric_label(name: str, samples: int) -> str:
    """A Fréchet distance over fewer than 50,000 samples says so in its name: ``fid_10k``."""
    name = name.removesuffix("_mean")
    if samples >= ENOUGH or not name.startswith(("fid", "fd_")):
        return name
    return f"{name}_{min(samples / 1000, 49.9):.3g}k"


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows as text, the heading first; of each seed's own spreads and of single classes the JSON alone tells.

    ``n`` is the number of samples of each row, which the heading of Fréchet distances has of the first; calls of the
    network are told where a row has others than steps. Floors of the first row are a row of their own.
    """
    metrics = dict.fromkeys(m for row in rows for m in row["metrics"])
    shown = [m for m in metrics if not m.endswith(("_std", AGAIN)) and not m.startswith(HIDDEN)]
    counted = any(row["nfe"] not in (None, row["steps"]) for row in rows)
    heading = ["", "steps", *["nfe"] * counted, "n", *(metric_label(m, rows[0]["samples"]) for m in shown)]
    lines = [heading]
    for row in rows:
        nfe = "" if row["nfe"] is None else f"{row['nfe']:g}"
        first = [row["name"], str(row["steps"] or ""), *[nfe] * counted, str(row["samples"])]
        lines.append([*first, *(figure(row, m, rows[0]["samples"]) for m in shown)])
    floors = [rows[0]["metrics"].get(m + AGAIN) for m in shown]
    if any(value is not None for value in floors):
        first = [DRAWN_AGAIN, "", *[""] * counted, str(rows[0]["samples"])]
        lines.append([*first, *("" if value is None else f"{value:.3g}" for value in floors)])
    return lines


def figure(row: dict[str, Any], metric: str, headed: int) -> str:
    """A single figure to three digits; over seeds mean, spread and minimum.

    ``headed``: number of samples that the heading tells; where that is enough and the row's is not, the cell says so.
    """
    if metric not in row["metrics"]:
        return ""
    mean, spread = row["metrics"][metric], row.get("spread", {}).get(metric)
    text = f"{mean:.3g}" if spread is None else f"{mean:.4g} ±{spread:.2g} ({row['minimum'][metric]:.4g})"
    heading, own = metric_label(metric, headed), metric_label(metric, row["samples"])
    return f"{own}: {text}" if headed >= ENOUGH and own != heading else text


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the rows, and below what the first is like."""
    heading, *body = (f"| {' | '.join(row)} |" for row in cells(rows))
    table = [heading, "|" + "---|" * len(cells(rows)[0]), *body]
    return "\n".join([*table, *(line for told in headlines(rows) for line in ("", told))])


def card_figures(evaluation: dict[str, Any] | None) -> str | None:
    """The content of ``evaluation.json`` as a model card has it, Markdown; None where nothing was measured."""
    if evaluation is None:
        return None
    stamp = json.dumps(evaluation["stamp"], indent=2)
    return f"{markdown(evaluation['rows'])}\n\nWhat the figures were made with:\n\n```json\n{stamp}\n```\n"


def table(heading: Sequence[str], body: Sequence[Sequence[str]], folded: bool = True, gap: int = 1) -> Table:
    """Text as a table for the screen: what stands first to the left, columns with a heading to the right.

    Args:
        heading: a name for each column; the first may have none
        body: the rows, a text for each column
        folded: whether a cell that is too wide is folded, so that no figure is cut, or keeps to its line
        gap: blanks between columns
    """
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap), pad_edge=False)
    for name in heading:
        grid.add_column(name, justify="right" if name else "left", overflow="fold", no_wrap=bool(name) and not folded)
    for row in body:
        grid.add_row(*row)
    return grid


def report_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of a report for the screen, and below what their figures mean."""
    heading, *body = cells(rows)
    shown, lines = table(heading, body, gap=0), headlines(rows)
    if any(row.get("spread") for row in rows):
        lines.append("mean ±standard deviation over seeds (minimum)")
    if any(name.startswith(("fd_", "fid")) for name in heading):
        lines.append("fd, fid, kd, kid: lower is better; is, precision, recall: higher")
    shown.caption = "\n".join(lines) or None
    return shown


def density_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of a run on a known density for the screen: a line for each figure, the floor beside the student."""
    names = dict.fromkeys(name for row in rows for name in row["metrics"])
    body = [[name, *(cell(row["metrics"].get(name)) for row in rows)] for name in names]
    return table(["", *(row["name"] for row in rows)], body, folded=False)


def score_table(metrics: dict[str, float]) -> Table:
    """The AUROC of energies for the screen."""
    return table(["", "AUROC"], [[name, f"{value:.4f}"] for name, value in metrics.items()], gap=0)


def cell(value: float | None) -> str:
    """A figure as text: whole numbers without decimals, nothing where there is none."""
    return "" if value is None else f"{value:.0f}" if float(value).is_integer() else f"{value:.3f}"


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of a report."""
    show_table(report_table(rows))


def show_density(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of a run on a known density, and how many samples they are of."""
    show_table(density_table(rows))
    paths, *less = (row["samples"] for row in rows)
    about = f"; distances of {less[0]} samples at most; floor: the density's own samples from others" if less else ""
    show_table(f"{paths} paths{about}")
