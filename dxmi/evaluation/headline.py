"""What rows say in one line: how many steps of a free solver a student is like, and whether a difference is real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DISTANCES = ("fid", "fd_")
"""how the names of Fréchet distances begin"""
AGAIN = "_floor"
"""what stands behind a figure's name where the data were drawn again"""
ORDER = {"<": 0, "": 1, ">": 2}  # of bounds, the better solver first
COARSE = 2  # steps between two measurements, above which a number between them is told with both


class Like(NamedTuple):
    """A number of steps of a solver, between two that were measured."""

    steps: float
    between: tuple[int, int]
    """the two"""
    bound: str = ""
    """``<`` where the fewest steps that were measured are better already, ``>`` where the most are not as good"""

    def __str__(self) -> str:
        low, high = self.between
        measured = f" (measured at {low} and {high})" if high - low > COARSE and not self.bound else ""
        return f"{self.bound}{self.steps:.3g} steps{measured}"


def steps_like(distance: float, solver: Mapping[int, float]) -> Like:
    """How many steps of a solver have this distance.

    Between two numbers of steps the log of the distance is linear in steps, and of more steps that are worse than fewer
    the fewer count (a running minimum).

    Args:
        distance: > 0
        solver: its distance by steps, each > 0; at least one
    """
    before, least = 0, math.inf
    for steps, other in sorted(solver.items()):
        if other <= distance:
            if not before:
                return Like(steps, (steps, steps), "<" if other < distance else "")
            share = math.log(least / distance) / math.log(least / other)
            return Like(before + share * (steps - before), (before, steps))
        before, least = steps, min(other, least)
    return Like(before, (before, before), ">")


def distance_of(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The first figure of the first row, if that is a Fréchet distance: rows are held against each other by it."""
    first = next((name for row in rows[:1] for name in row["metrics"]), "")
    return first if first.startswith(DISTANCES) else None


def likened(rows: Sequence[dict[str, Any]], subjects: int = 1) -> list[dict[str, Any]]:
    """The rows, of which the first ``subjects`` say by ``steps_like`` how many steps of the best solver they are like.

    Solvers are the other rows with equal names at several numbers of steps; the best one needs the fewest, and where
    none is as good it comes nearest. A row is left as it is where there is no solver, or a distance is not positive.

    Returns:
        rows with ``steps_like``: ``{solver, metric, steps, between, bound}``, as of ``Like``
    """
    metric, solvers = distance_of(rows), dict[str, dict[int, float]]()
    for row in rows[subjects:]:
        if metric in row["metrics"] and row["steps"] and row["metrics"][metric] > 0:
            solvers.setdefault(row["name"], {})[row["steps"]] = row["metrics"][metric]
    several = {name: found for name, found in solvers.items() if len(found) > 1}
    out = [*rows]
    for i, row in enumerate(rows[:subjects]):
        if several and row["metrics"].get(metric, 0) > 0:
            found = {name: steps_like(row["metrics"][metric], solver) for name, solver in several.items()}
            best = min(
                found, key=lambda name: (ORDER[found[name].bound], found[name].steps, min(several[name].values()))
            )
            out[i] = row | {"steps_like": {"solver": best, "metric": metric, **found[best]._asdict()}}
    return out


def headlines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each row that is like some number of steps of a solver."""
    lines = []
    for row in rows:
        if told := row.get("steps_like"):
            like = Like(told["steps"], tuple(told["between"]), told["bound"])
            lines.append(f"{called(row)} is like {like} of {told['solver']}, by {told['metric']}")
    return lines


def too_coarse(rows: Sequence[Mapping[str, Any]], floor: str) -> list[str]:
    """A line for each distance whose floor is above half of the difference between the first row and the best other.

    It falls as 1/n, so the line says how many samples would do. ``floor``: the name of the data's own row, which does
    not count.
    """
    lines, (first, *rest) = [], rows
    again = [name for name in first["metrics"] if name.startswith(DISTANCES) and name + AGAIN in first["metrics"]]
    for metric in again:
        others = [row for row in rest if metric in row["metrics"] and row["name"] != floor]
        if not others:
            continue
        best = min(others, key=lambda row: row["metrics"][metric])
        level, n = first["metrics"][f"{metric}{AGAIN}"], first["samples"]
        difference = abs(first["metrics"][metric] - best["metrics"][metric])
        if level > difference / 2:
            enough = f"about {rounded_up(2 * level * n / difference):,} would do" if difference else "they are equal"
            lines.append(
                f"{metric}: the floor of {n:,} samples, {level:.2g}, is above half of the difference between "
                f"{called(first)} and {called(best)}, {difference:.2g}; {enough}"
            )
    return lines


def in_question(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose difference a report is asked to show.

    Where the first is like a number of steps between two, these are what has to be told apart; else all are.
    """
    like = rows[0].get("steps_like")
    if like is None or like["bound"]:
        return [*rows]
    return [row for row in rows if row["name"] == like["solver"] and row["steps"] in like["between"]]


def called(row: Mapping[str, Any]) -> str:
    """A row's name and number of steps."""
    return f"{row['name']} ({row['steps']} steps)" if row["steps"] else str(row["name"])


def rounded_up(number: float) -> int:
    """To two digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
