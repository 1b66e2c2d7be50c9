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
from dxmi.figures import markdown, metric_label, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = "data-floor"


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
        ticks = sorted({row["nfe"] for row in drawn})
        if len(ticks) <= 10:
            axes.set_xticks(ticks, [f"{nfe:g}" for nfe in ticks])
            axes.set_xticks([], minor=True)
        axes.set_ylabel(f"{metric_label(name, n)}, n={n}")
        axes.legend(fontsize=8)
        return figure

    def beside(self, old: Report) -> Report:
        """These rows with the figures of ``old`` that they lack, where stamps, subjects and samples are equal."""
        report = json.loads(self.to_json())  # seeds as a file has them
        if report["stamp"] != old.stamp:
            return self
        same = ("name", "steps", "subject", "samples")
        for row in report["rows"]:
            for kept in (kept for kept in old.rows if all(kept.get(key) == row.get(key) for key in same)):
                for figures in ("metrics", "spread", "minimum"):
                    row[figures] = kept[figures] | row[figures]
                row["seeds"] = {seed: kept["seeds"].get(seed, {}) | own for seed, own in row["seeds"].items()}
        return Report(**report)

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


def load_report(path: Path, option: str = "--compare") -> Report:
    """What ``report.json``, alone or in a folder, or a run's ``evaluation.json`` holds; ``option`` is what named it.

    Raises:
        ConfigError: it holds none
    """
    try:
        found = json.loads((path / "report.json" if path.is_dir() else path).read_text())
        usual: dict[str, Any] = {"nfe": None, "spread": {}, "minimum": {}, "seeds": {}}
        rows = [row | {key: usual[key] for key in usual.keys() - row.keys()} for row in found["rows"]]
        require(all({"name", "samples", "metrics", "steps"} <= row.keys() for row in rows) and bool(rows), "no rows")
        return Report(rows, dict(found["stamp"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{option}: {path} holds no report of 'dxmi evaluate'; give another") from error


def earlier(folder: Path, rows: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]) -> Report | None:
    """The folder's report, where there is one.

    rows: ``{name, steps, subject}`` of what is to be measured. More of them, more seeds and more samples than before
    are the same report made larger.

    Raises:
        ConfigError: it is of something else, and would be lost
    """
    if not (folder / "report.json").exists():
        return None
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
    return old


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
    paths = first, second
    called = [p.stem for p in paths], [p.absolute().parent.name for p in paths], [str(p) for p in paths]
    both = zip(next((pair for pair in called if pair[0] != pair[1]), called[0]), reports, strict=True)
    rows = [row | {"name": f"{name}: {row['name']}"} for name, report in both for row in report.rows]
    return Report(rows, reports[0].stamp)
