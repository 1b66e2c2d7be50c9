"""What an evaluation found: rows of figures, as tables and a picture, and the stamp of what made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from dxmi.dialect import differences
from dxmi.errors import ConfigError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

FLOOR = "data-floor"
WIDE = 200  # characters
HIDDEN = ("f_score", "accuracy/")  # of tables; the JSON has them


@dataclass
class Report:
    """Rows ``{name, steps, nfe, samples, metrics, spread, minimum, seeds, subject}`` and the stamp, as in report.json.

    ``metrics`` are means over seeds, ``spread`` standard deviations (n - 1) and ``minimum`` the smallest; ``seeds``
    holds each seed's own figures. ``nfe`` counts calls of the network for one sample, ``subject`` says what was
    measured. The rows of a run's ``evaluation.json`` have neither seeds nor a subject.
    """

    rows: list[dict[str, Any]]
    stamp: dict[str, Any]

    def table(self) -> str:
        """Markdown: a row for each that was measured, mean +- spread over seeds and the minimum in brackets."""
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
        require(bool(drawn), f"picture: no row has a positive {name} and network evaluations to draw it against")
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
        axes.set_ylabel(f"{metric_label(name, n)}, n={n}")
        axes.legend(fontsize=8)
        return figure

    def save(self, folder: Path) -> list[Path]:
        """report.json, table.md with the stamp, and picture.png where there are network evaluations to draw.

        Each is written whole or not at all; a picture of before goes where there is none to draw.
        """
        folder.mkdir(parents=True, exist_ok=True)
        data, text, picture = (folder / name for name in ("report.json", "table.md", "picture.png"))
        stamp = json.dumps(self.stamp, indent=2)
        told = f"{self.table()}\n\nWhat the figures were made with:\n\n```json\n{stamp}\n```\n"
        replace(data, lambda path: path.write_text(self.to_json() + "\n"))
        replace(text, lambda path: path.write_text(told))
        try:
            figure = self.plot()
        except ConfigError:
            picture.unlink(missing_ok=True)
            return [data, text]
        replace(picture, lambda path: figure.savefig(path, dpi=120))
        return [data, text, picture]


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """A file that is there whole or not at all: ``write`` makes it beside, under a name of the same ending."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def over_seeds(
    name: str, steps: int | None, nfe: float | None, found: Mapping[int | None, dict[str, Any]]
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


def metric_label(name: str, samples: int) -> str:
    """A Fréchet distance over fewer than 50,000 samples says so in its name: ``fid_10k``."""
    name = name.removesuffix("_mean")
    if samples >= 50_000 or not name.startswith(("fid", "fd_")):
        return name
    return f"{name}_{samples / 1000:.3g}k"


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
        out.append([*told, *(figure(row, m) for m in shown)])
    return out


def figure(row: dict[str, Any], metric: str) -> str:
    """A single figure to three digits; over seeds mean, spread and minimum."""
    if metric not in row["metrics"]:
        return ""
    mean, spread = row["metrics"][metric], row.get("spread", {}).get(metric)
    return f"{mean:.3g}" if spread is None else f"{mean:.4g} ±{spread:.2g} ({row['minimum'][metric]:.4g})"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the rows."""
    heading, *body = (f"| {' | '.join(row)} |" for row in cells(rows))
    return "\n".join([heading, "|" + "---|" * len(cells(rows)[0]), *body])


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


def load_report(path: Path, option: str = "--compare") -> Report:
    """What ``report.json`` or a run's ``evaluation.json`` holds; ``option`` is what named the file.

    Raises:
        ConfigError: it holds none
    """
    try:
        found = json.loads(path.read_text())
        rows = [{"nfe": None, "spread": {}, **row} for row in found["rows"]]
        require(all({"name", "samples", "metrics", "steps"} <= row.keys() for row in rows) and bool(rows), "no rows")
        return Report(rows, dict(found["stamp"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{option}: {path} holds no report of 'dxmi evaluate'; give another") from error


def refuse_other(folder: Path, rows: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]) -> None:
    """Raise ConfigError if the folder's report is of something else, and would be lost.

    rows: ``{name, steps, subject}`` of what is to be measured. More of them, more seeds and more samples than before
    are the same report made larger.
    """
    if not (folder / "report.json").exists():
        return
    old, keys = load_report(folder / "report.json", "--out"), ("name", "steps", "subject")
    wanted, new = json.loads(json.dumps([[[row[key] for key in keys] for row in rows], stamp]))  # as a file has it
    gone = [row for row in old.rows if row["name"] != FLOOR and [row.get(key) for key in keys] not in wanted]
    lost = [row["name"] + ("" if row["steps"] is None else f", {row['steps']} steps") for row in gone]
    for key in ("evaluators", "reference", "prompts"):
        lost += differences(old.stamp.get(key), new.get(key), key)
    lost += [f"seed {seed}" for seed in old.stamp.get("seed", []) if seed not in new.get("seed", [])]
    lost += [f"{row['name']}, {row['samples']} samples" for row in old.rows[:1] if row["samples"] > new["samples"]]
    told = f"--out: {folder} holds a report of something else ({''.join(lost[:1])}); give another folder"
    require(not lost, told)


def compared(first: Path, second: Path) -> Report:
    """The rows of two reports whose figures may be held against each other, named after their files or folders.

    Their noise may differ, and seeds count only where both have some: images that are stored have none.

    Raises:
        ConfigError: one cannot be read, or their stamps or numbers of samples differ; the message says where
    """
    reports = load_report(first), load_report(second)
    told = [report.stamp | {"samples": report.rows[0]["samples"]} for report in reports]
    seeds = [seed if isinstance(seed, list) else [seed] for seed in (made.pop("seed", []) for made in told)]
    for made, seed in zip(told, seeds, strict=True):
        made.pop("noise", None)  # chains and pipelines may be compared, and so may images that nobody drew
        made.update({"seed": seed} if all(seeds) else {})
    differing = differences(told[0], told[1])
    if differing:
        raise ConfigError(f"--compare: the two were not made alike: {'; '.join(differing)}")
    names = [path.stem for path in (first, second)]
    if names[0] == names[1]:
        names = [path.absolute().parent.name for path in (first, second)]
    both = zip(names, reports, strict=True)
    rows = [row | {"name": f"{name}: {row['name']}"} for name, report in both for row in report.rows]
    return Report(rows, reports[0].stamp)
