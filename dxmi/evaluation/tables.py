"""Rows of figures as tables: Markdown, and for the screen. Every row tells its number of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

ENOUGH = 50_000  # samples of a Fréchet distance; one over fewer says so


WIDE = 200  # characters


HIDDEN = ("f_score", "accuracy/")  # of tables; the JSON has them


def metric_label(name: str, samples: int) -> str:
    """A Fréchet distance over fewer than 50,000 samples says so in its name: ``fid_10k``."""
    name = name.removesuffix("_mean")
    if samples >= ENOUGH or not name.startswith(("fid", "fd_")):
        return name
    return f"{name}_{min(samples / 1000, 49.9):.3g}k"


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows as text, the heading first; of each seed's own spreads and of single classes the JSON alone tells.

    ``n`` is the number of samples of each row, which the heading of Fréchet distances has of the first; calls of the
    network are told where a row has others than steps.
    """
    metrics = dict.fromkeys(m for row in rows for m in row["metrics"])
    shown = [m for m in metrics if not m.endswith("_std") and not m.startswith(HIDDEN)]
    counted = any(row["nfe"] not in (None, row["steps"]) for row in rows)
    heading = ["", "steps", *["nfe"] * counted, "n", *(metric_label(m, rows[0]["samples"]) for m in shown)]
    out = [heading]
    for row in rows:
        nfe = "" if row["nfe"] is None else f"{row['nfe']:g}"
        told = [row["name"], str(row["steps"] or ""), *[nfe] * counted, str(row["samples"])]
        out.append([*told, *(figure(row, m, rows[0]["samples"]) for m in shown)])
    return out


def figure(row: dict[str, Any], metric: str, headed: int) -> str:
    """A single figure to three digits; over seeds mean, spread and minimum.

    ``headed``: number of samples that the heading tells; where that is enough and the row's is not, the cell says so.
    """
    if metric not in row["metrics"]:
        return ""
    mean, spread = row["metrics"][metric], row.get("spread", {}).get(metric)
    told = f"{mean:.3g}" if spread is None else f"{mean:.4g} ±{spread:.2g} ({row['minimum'][metric]:.4g})"
    heading, own = metric_label(metric, headed), metric_label(metric, row["samples"])
    return f"{own}: {told}" if headed >= ENOUGH and own != heading else told


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the rows."""
    heading, *body = (f"| {' | '.join(row)} |" for row in cells(rows))
    return "\n".join([heading, "|" + "---|" * len(cells(rows)[0]), *body])


def card_figures(evaluation: dict[str, Any] | None) -> str | None:
    """The content of ``evaluation.json`` as a model card has it, Markdown; None where nothing was measured."""
    if evaluation is None:
        return None
    stamp = json.dumps(evaluation["stamp"], indent=2)
    return f"{markdown(evaluation['rows'])}\n\nWhat the figures were made with:\n\n```json\n{stamp}\n```\n"


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for the screen; what is too wide for it is folded, so that no figure is cut."""
    from rich import box
    from rich.table import Table

    heading, *body = cells(rows)
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    for name in heading:
        out.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in body:
        out.add_row(*row)
    lines = []
    if any(row.get("spread") for row in rows):
        lines.append("mean ±standard deviation over seeds (minimum)")
    if any(name.startswith(("fd_", "fid")) for name in heading):
        lines.append("fd, fid, kd, kid: lower is better; is, precision, recall: higher")
    out.caption = "\n".join(lines) or None
    return out


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table; in a log file, which nobody narrows, without folding."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=WIDE)).print(table(rows))


def show_density(rows: list[dict[str, Any]]) -> None:
    """The rows of ``evaluation.json`` on the screen: a line for each figure, the floor beside the student."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    out.add_column("")
    for row in rows:
        out.add_column(row["name"], justify="right", no_wrap=True)
    for name in dict.fromkeys(name for row in rows for name in row["metrics"]):
        out.add_row(name, *(cell(row["metrics"].get(name)) for row in rows))
    Console().print(out)
    paths, *less = (row["samples"] for row in rows)
    about = f"; distances of {less[0]} samples at most; floor: the density's own samples from others" if less else ""
    Console().print(f"{paths} paths{about}")


def cell(value: float | None) -> str:
    """A figure as text: whole numbers without decimals, nothing where there is none."""
    return "" if value is None else f"{value:.0f}" if float(value).is_integer() else f"{value:.3f}"


def score_table(metrics: dict[str, float]) -> Table:
    """The AUROC of energies as a table for the screen."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column("")
    table.add_column("AUROC", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    return table
