"""Reports of before: read again, held against each other, and what becomes of one that a new one takes the place of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config.yaml_files import differences
from dxmi.evaluation.report import FLOOR, Report
from dxmi.runs.folder import Run


def load_report(source: str | Path | Run, key: str = "report") -> Report:
    """The report of an evaluation, or what ``dxmi train`` measured of a run.

    Args:
        source: a run or another folder with ``report.json`` or ``evaluation.json``, or such a file
        key: the parameter that named it, for messages

    Raises:
        ConfigError: it holds none
    """
    path = Path(source)
    try:
        inside = next((file for file in (path / "report.json", path / "evaluation.json") if file.exists()), path)
        content = json.loads(inside.read_text())
        usual: dict[str, Any] = {"nfe": None, "spread": {}, "minimum": {}, "seeds": {}}
        rows = [row | {key: usual[key] for key in usual.keys() - row.keys()} for row in content["rows"]]
        if not rows or not all({"name", "samples", "metrics", "steps"} <= row.keys() for row in rows):
            raise ValueError("no rows")
        if not all(row["spread"].keys() <= row["minimum"].keys() for row in rows):
            raise ValueError("no minima")
        return Report(rows, dict(content["stamp"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(key, f"{path} holds no report of 'dxmi evaluate'", "give another") from error


def earlier(folder: Path, rows: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]) -> Report | None:
    """The folder's report, where there is one.

    rows: ``{name, steps, subject}`` of what is to be measured. More of them, more seeds and more samples than before
    are the same report made larger.

    Raises:
        ConfigError: it is of something else, and would be lost
    """
    if not (folder / "report.json").exists():
        return None
    old, keys = load_report(folder / "report.json", "out"), ("name", "steps", "subject")
    wanted, new = json.loads(json.dumps([[[row[key] for key in keys] for row in rows], stamp]))  # as a file has it
    stamps = ((key, old.stamp.get(key), new.get(key)) for key in ("evaluators", "reference", "prompts"))
    lost = [line for key, was, now in stamps for line in differences(was, now, key)]
    lost += [f"seed {seed} is left out" for seed in old.stamp.get("seed", []) if seed not in new.get("seed", [])]
    lost += [f"n: {row['samples']} -> {new['samples']}" for row in old.rows[:1] if row["samples"] > new["samples"]]
    for row in old.rows:
        name = row["name"] + ("" if row["steps"] is None else f", {row['steps']} steps")
        if row["name"] != FLOOR and [row.get(key) for key in keys] not in wanted:
            measured = any([row["name"], row["steps"]] == other[:2] for other in wanted)
            lost.append(f"{name}: {'another subject' if measured else 'left out'}")
    other = f"{folder} holds a report of something else ({''.join(lost[:1])})"
    require(not lost, "out", other, "give another folder")
    return old


def joined(new: Report, old: Report) -> Report:
    """``new`` with the figures of ``old`` that it lacks, where stamps, subjects and samples are equal."""
    content = json.loads(new.to_json())  # tuples, as of seeds, are lists in a file
    if content["stamp"] != old.stamp:
        return new
    same = ("name", "steps", "subject", "samples")
    for row in content["rows"]:
        for kept in (kept for kept in old.rows if all(kept.get(key) == row.get(key) for key in same)):
            for part in ("metrics", "spread", "minimum"):
                row[part] = kept[part] | row[part]
            row["seeds"] = {seed: kept["seeds"].get(seed, {}) | own for seed, own in row["seeds"].items()}
    return Report(**content)


def figures(report: Report) -> list[Any]:
    """What each figure is: name, steps and subject of its row, and the metric."""
    return [(row["name"], row["steps"], row.get("subject"), metric) for row in report.rows for metric in row["metrics"]]


def put_aside(folder: Path, old: Report, new: Report) -> Path | None:
    """Keep the folder's report under another name if it has a figure that ``new`` lacks; that name, or None."""
    kept = figures(new)
    if all(figure in kept for figure in figures(old)):
        return None
    names = (folder / f"report-{k}.json" for k in count(1))
    free = next(name for name in names if not name.exists())
    (folder / "report.json").rename(free)
    return free


def keep(new: Report, old: Report | None, folder: Path, tell: Callable[[str], None]) -> None:
    """Save a report where ``old`` was; what would be lost with that is put aside, and ``tell`` hears where."""
    aside = None if old is None else put_aside(folder, old, new)
    new.save(folder)
    if aside is not None:
        tell(f"note: figures of before that {folder / 'report.json'} has no more are in {aside}")


def compared(first: Path, second: Path) -> Report:
    """The rows of two reports whose figures may be held against each other, named after their files or folders.

    Their noise may differ, and seeds count only where both have some: images that are stored have none.

    Raises:
        ConfigError: one cannot be read, or their stamps or numbers of samples differ; the message says where
    """
    reports = load_report(first, "compare"), load_report(second, "compare")
    stamps = [report.stamp | {"samples": report.rows[0]["samples"]} for report in reports]
    seeds = [seed if isinstance(seed, list) else [seed] for seed in (made.pop("seed", []) for made in stamps)]
    for made, seed in zip(stamps, seeds, strict=True):
        made.pop("noise", None)  # chains and pipelines may be compared, and so may images that nobody drew
        made.update({"seed": seed} if all(seeds) else {})
    differing = differences(stamps[0], stamps[1])
    if differing:
        raise ConfigError("compare", f"the two were not made alike: {'; '.join(differing)}")
    paths = first, second
    called = [p.stem for p in paths], [p.absolute().parent.name for p in paths], [str(p) for p in paths]
    both = zip(next((pair for pair in called if pair[0] != pair[1]), called[0]), reports, strict=True)
    rows = [row | {"name": f"{name}: {row['name']}"} for name, report in both for row in report.rows]
    return Report(rows, reports[0].stamp)
