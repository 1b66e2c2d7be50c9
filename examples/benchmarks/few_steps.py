"""The game against its rivals at equal CPU-seconds: digits students of one, two and four steps, three seeds each.

    python examples/benchmarks/few_steps.py --pictures examples/results/few_steps
    python examples/benchmarks/few_steps.py --only ours dmd2 --steps 4 --seeds 0
    python examples/benchmarks/few_steps.py --table

A cell is a method at a number of steps with a seed: a process of its own, on one thread, that trains with a script of
examples/rivals and measures 20,000 samples. What is finished is kept in the JSON file, and not done again. Rivals have
the CPU-seconds that the game needed at as many steps with seed 0, warm start and all, or ``--seconds``. With
``--trials N`` each rival tries N settings (``TRIALS`` in its script) with seed 0; the best by ``fd_digits`` goes on
with the other seeds. The game's own settings were chosen by many runs with seed 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from few_steps_results import FREE, OURS, RIVALS, Cell, Results, grid, picture, table

from dxmi.api import ConfigError
from dxmi.api.errors import require

EXAMPLES = Path(__file__).parents[1]
Tried = Callable[[Cell, float | None], None]


def command(cell: Cell, seconds: float | None, samples: int, out: Path) -> list[str]:
    """What trains and measures a cell."""
    script, own = RIVALS.get(cell.method, (OURS if cell.method == OURS else "solver", {}))
    words: list[Any] = [sys.executable, EXAMPLES / "rivals" / f"{script}.py", "--steps", cell.steps]
    words += ["--seed", cell.seed, "--samples", samples, "--out", out]
    if cell.method in RIVALS:
        chosen = {key: str(value) for key, value in own.items()} | dict(pair.split("=") for pair in cell.settings)
        words += ["--seconds", seconds, "--set", *(f"{key}={value}" for key, value in chosen.items())]
    elif cell.method != OURS:
        words += ["--solver", cell.method]
    return [str(word) for word in words]


def run(cell: Cell, seconds: float | None, given: argparse.Namespace, results: Results) -> None:
    """One cell in a process of its own, unless it is kept. Raises ConfigError if it fails."""
    if results.has(cell, seconds) and not given.again:
        return
    print(f"{cell.key}{'' if seconds is None else f', {seconds:g} CPU-seconds'}", flush=True)
    out = cell.folder(given.folder)
    shutil.rmtree(out, ignore_errors=True)  # what is left of an earlier try
    one = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command(cell, seconds, given.samples, out), env=one, stdout=subprocess.PIPE, text=True)
    last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
    require(done.returncode == 0, cell.key, last)
    print(last, flush=True)
    results.keep(cell, json.loads((out / "result.json").read_text()), seconds)


def fill(given: argparse.Namespace, results: Results) -> list[str]:
    """All cells that are asked for, each once; what went wrong, a line each."""
    failed: list[str] = []
    seen: set[Cell] = set()

    def tried(cell: Cell, seconds: float | None) -> None:
        if cell not in seen:
            seen.add(cell)
            with caught(failed):
                run(cell, seconds, given, results)

    for steps in given.steps:
        for seed in given.seeds if OURS in given.only else ():
            tried(Cell(OURS, steps, seed), None)
        for method in (method for method in given.only if method in RIVALS):
            with caught(failed):
                race(method, steps, given, results, tried)
    for method, steps in FREE if "free" in given.only else ():
        for seed in given.seeds:
            tried(Cell(method, steps, seed), None)
    return failed


@contextmanager
def caught(failed: list[str]) -> Iterator[None]:
    """A ConfigError inside is told and noted; what comes after is done all the same."""
    try:
        yield
    except ConfigError as error:
        failed.append(str(error))
        print(f"error: {error}", flush=True)


def race(method: str, steps: int, given: argparse.Namespace, results: Results, tried: Tried) -> None:
    """A rival: its trials with seed 0, then the best settings with all seeds.

    Raises:
        ConfigError: nobody says how much time it has
    """
    seconds = given.seconds
    if seconds is None:
        ours = results.cells(OURS, steps)
        cure = "run --only ours first, or give --seconds"
        require(bool(ours), "--seconds", f"the game's own at {steps} steps are not known", cure)
        seconds = ours[0]["seconds"]
    sys.path.insert(0, str(EXAMPLES / "rivals"))
    trials = importlib.import_module(RIVALS[method][0]).TRIALS[: given.trials]
    for settings in trials if 0 in given.seeds else ():
        tried(Cell(method, steps, 0, tuple(f"{key}={value}" for key, value in settings.items())), seconds)
    for seed in given.seeds:
        tried(Cell(method, steps, seed, tuple(results.best(method, steps))), seconds)


def main() -> None:
    every = [OURS, *RIVALS, "free"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="METHOD", help=", ".join(every))
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 2, 1], help="T of the students")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, help="CPU-seconds of rivals, in place of the game's own")
    parser.add_argument("--trials", type=int, default=1, help="settings that each rival tries with seed 0")
    parser.add_argument("--samples", type=int, default=20_000, help="that are measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON file of the cells")
    parser.add_argument("--folder", type=Path, default=Path("runs/few_steps"), help="for what cells leave")
    parser.add_argument("--again", action="store_true", help="measure kept cells again")
    parser.add_argument("--table", action="store_true", help="print what the JSON file has, and measure nothing")
    parser.add_argument("--pictures", type=Path, help="folder for distance.png and samples_tT.png")
    given = parser.parse_args()
    try:
        results = Results(given.out)
        failed = [] if given.table else fill(given, results)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    print(table(results))
    if given.pictures:
        picture(results, given.pictures / "distance.png")
        for steps in (1, 2, 4):
            grid(results, steps, given.folder, given.pictures / f"samples_t{steps}.png")
    sys.exit("\n".join(f"error: {line}" for line in failed) or 0)


if __name__ == "__main__":
    main()
