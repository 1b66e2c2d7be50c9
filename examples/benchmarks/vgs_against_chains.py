"""Value-gradient sampling against tuned chains at equal numbers of energy gradients, on twenty-five Gaussians.

    python examples/benchmarks/vgs_against_chains.py --out examples/benchmarks/vgs_against_chains.json

The budget is what a VGS sample costs: one gradient of the energy a step, and one more for each product with its second
derivative where the covariance is the posterior's. Every chain is independent of the others, gives its last state,
and gets that many gradients and one more, ten times and a hundred times as many. All is in the chains' favour:

- they are tuned by the very figures that are reported, on other seeds, from starts N(0, s^2 I) up to some that cover
  all modes: one setting for the product of both figures, and under ``alone`` one for each figure, whatever the other;
- annealed Langevin knows the mixture with noise added in closed form, where an energy alone would not tell it;
- VGS is not tuned here, and its training is counted and told but not charged.

``vgs_weighted`` are n of its n samples drawn again by their log-weights, which ask for one energy more and no gradient.
Figures are medians over three seeds of noise, each with its own reference; the floor is exact samples against others.
"""

import argparse
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from torch import Generator, Tensor

from dxmi.api import Cost, Energy, Evaluator, Sampler
from dxmi.chains import known_cost, walk, weigh
from dxmi.config import Checked, TrainConfig, build_plugin, read_yaml
from dxmi.config.plugins import load
from dxmi.evaluation import Halves, halves
from dxmi.runs import Run
from dxmi.training.session import Session
from dxmi.training.train import fill_replay, play_round

CONFIG = Path(__file__).parents[2] / "configs" / "gmm25_vgs.yaml"
METRICS = ["mode_error", "energy_w2"]
SEEDS, SEARCH, FINAL = (0, 1, 2), 1000, 1001
FINALISTS = 4  # for each figure, the settings of a search that are tried again with another seed
STARTS = [1.0, 2.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 14.0]
GRIDS: dict[str, dict[str, list[Any]]] = {
    "mala": {"step_size": [0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0], "start": STARTS},
    "hmc": {
        "step_size": [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0],
        "leapfrog": [2, 3, 5, 10, 15, 30],
        "start": STARTS,
    },
    "annealed_langevin": {
        "inner": [1, 2, 3, 5, 10, 30, 100],
        "sigma_max": [2.5, 5.0, 10.0, 20.0],
        "sigma_min": [0.05, 0.1, 0.2, 0.4],
        "step_size": [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5],  # in units of sigma_min^2
        "start": [None, *STARTS[3:]],
        "denoise": [True, False],
    },
}
TRIES = {1: 1000, 10: 200, 100: 40}  # settings of a grid that are tried, drawn at random where it has more
LEVELS = range(3, 151)  # of noise; more of them only take time to set up
Figures = dict[str, float]
AIMS: dict[str, Callable[[Figures], float]] = {
    "both": lambda found: math.prod(found.values()),
    **{metric: itemgetter(metric) for metric in METRICS},
}


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the rows at which mixtures are asked for ``values``, and for ``gradients`` of either order.

    A product with the second derivative is a gradient's gradient, which passes through x as the first one did.
    """
    asked: Counter[str] = Counter()
    forward, with_gradient = GaussianMixture.forward, GaussianMixture.with_gradient

    def counted_forward(
        self: GaussianMixture, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        asked.update(values=len(x))
        if x.requires_grad and torch.is_grad_enabled():
            x = x.view_as(x)
            x.register_hook(lambda g: asked.update(gradients=len(g)))
        return forward(self, x, t, cond)

    def counted_gradient(self: GaussianMixture, x: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
        asked.update(values=len(x), gradients=len(x))
        return with_gradient(self, x, *rest)

    with patch.multiple(GaussianMixture, forward=counted_forward, with_gradient=counted_gradient):
        yield asked


def training_cost(folder: Path) -> dict[str, int]:
    """What the training of a run asked of the energy: so many rounds counted, times all."""
    checked = Checked(TrainConfig, read_yaml(folder / "run.yaml") | {"tracker": None})
    with tempfile.TemporaryDirectory() as products, counting() as filling:
        session = Session(checked, Path(products))
        run = session.run
        fill_replay(session)
    counted = run.replay.every if run.replay and run.replay.every else 1  # a period of the rounds' work
    with counting() as asked:
        for _ in range(counted):
            play_round(session)
    return {name: filling[name] + asked[name] * run.steps // counted for name in ("values", "gradients")}


def ends(sampler: Sampler, cost: Cost, n: int, seed: int) -> Tensor:
    """N last states (n,*S)."""
    shape = (n, *(cost.energy.event_shape or ()))
    return deque(walk(sampler, cost, shape, Generator().manual_seed(seed)), maxlen=1).pop()


def resampled(sampler: Sampler, cost: Cost, n: int, seed: int) -> Tensor:
    """N samples drawn from n by their weights, systematically: as often as due, but for rounding."""
    generator = Generator().manual_seed(seed)
    drawn = weigh(sampler, cost, n, sampler.tau, generator)
    due = drawn.log_w.double().softmax(0).cumsum(0)
    marks = (torch.arange(n) + torch.rand(1, generator=generator)) / n
    return drawn.samples[torch.searchsorted(due, marks.double()).clamp(max=n - 1)]


class Judge:
    """The installed evaluator ``densities`` with n samples, and a reference for each seed."""

    def __init__(self, energy: Energy, n: int):
        self.energy, self.n, self.parts = energy, n, dict[int, Halves]()
        self.evaluator = build_plugin(Evaluator, {"name": "densities", "samples": n, "metrics": METRICS})

    def __call__(self, samples: Callable[[Halves], Tensor], seed: int) -> Figures:
        """The figures of samples; infinite if some are not finite."""
        if seed not in self.parts:
            self.parts[seed] = halves(self.energy, 1.0, self.n, seed)
        try:
            return self.evaluator(lambda n: samples(self.parts[seed]), self.parts[seed].reference)
        except FloatingPointError:
            return dict.fromkeys(METRICS, math.inf)

    def chain(self, setting: dict[str, Any], seed: int) -> Figures:
        """The figures of a chain of this library."""
        sampler = built(setting)
        return self(lambda _: ends(sampler, known_cost(self.energy, sampler), self.n, seed), seed)


def built(setting: dict[str, Any]) -> Sampler:
    """A chain from its name and options; these need none of the checks of a user's file."""
    sampler: Sampler = load("dxmi.samplers", setting["name"])(**{k: v for k, v in setting.items() if k != "name"})
    return sampler


def settings(name: str, budget: int) -> list[dict[str, Any]]:
    """All settings of a method that take ``budget`` gradients and, for the start or to denoise, at most one more."""
    grid = GRIDS[name]
    found = [{"name": name, **dict(zip(grid, values, strict=True))} for values in product(*grid.values())]
    if name == "annealed_langevin":
        found = [s for s in found if budget % s["inner"] == 0 and budget // s["inner"] in LEVELS]
        return [s | {"levels": budget // s["inner"], "step_size": s["step_size"] * s["sigma_min"] ** 2} for s in found]
    found = [s for s in found if budget % s.get("leapfrog", 1) == 0]
    return [s | {"steps": budget // s.get("leapfrog", 1)} for s in found]


def tuned(name: str, budget: int, tries: int, search: Judge, final: Judge) -> dict[str, dict[str, Any]]:
    """The best setting found for each aim: searched on one seed, the first few compared again on another."""
    tried = settings(name, budget)
    tried = tried if len(tried) <= tries else random.Random(0).sample(tried, tries)
    scored = [(setting, search.chain(setting, SEARCH)) for setting in tried]
    best = {}
    for name, aim in AIMS.items():
        first = sorted(scored, key=lambda pair: aim(pair[1]))[:FINALISTS]
        best[name] = min((setting for setting, _ in first), key=lambda s: aim(final.chain(s, FINAL)))
    return best


def row(name: str, measure: Callable[[int], Figures], rows: int) -> dict[str, Any]:
    """Medians over the seeds, and the evaluations of a sample."""
    with counting() as asked:
        runs = [measure(seed) for seed in SEEDS]
    middle = {metric: statistics.median(run[metric] for run in runs) for metric in METRICS}
    return {"name": name, "gradients": asked["gradients"] / len(SEEDS) / rows, **middle, "seeds": runs}


def chain_row(name: str, budget: int, factor: int, search: Judge, judge: Judge) -> dict[str, Any]:
    """A method at a budget, with the setting that is best at both figures, and with those best at one."""
    best = tuned(name, factor * budget, TRIES[factor], search, judge)
    parts = {
        aim: row(name, lambda seed, s=s: judge.chain(s, seed), judge.n) | {"setting": s} for aim, s in best.items()
    }
    return parts.pop("both") | {"factor": factor, "alone": parts}


def show(found: dict[str, Any]) -> None:
    alone = found.get("alone", {})
    figures = [found[m] for m in METRICS] + [alone[m][m] for m in METRICS if alone]
    print(f"{found['name']:<20} {found['gradients']:>9.0f} " + " ".join(f"{f:>11.4f}" for f in figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="of value-gradient sampling of a Gaussian mixture")
    parser.add_argument("--run", type=Path, help="folder of a finished run; by default one is trained")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--factors", type=int, nargs="+", default=list(TRIES), choices=TRIES, help="of the budget")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or Path(folder) / "run"
        if given.run is None:
            command = [sys.executable, "-m", "dxmi", "train", given.config, "--out", run, "--tracker", "null"]
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        report = compared(run, given.samples, given.factors)
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")


def compared(folder: Path, n: int, factors: list[int]) -> dict[str, Any]:
    """The table of a run, printed row by row."""
    run, cost, *_ = Run(folder).finished()
    trained = training_cost(folder)
    judge, search = Judge(run.energy, n), Judge(run.energy, n // 4)
    print(f"training asked {trained['values']:,} energies and {trained['gradients']:,} gradients; grids:")
    for name, grid in GRIDS.items():
        print(f"  {name}: {json.dumps(grid)}")
    heads = [*METRICS, *("alone" for _ in METRICS)]
    print(f"{'':<20} {'gradients':>9} " + " ".join(f"{head:>11}" for head in heads), flush=True)
    rows = [
        row("floor", lambda seed: judge(lambda parts: parts.other, seed), n),
        row("vgs", lambda seed: judge(lambda _: ends(run.sampler, cost, n, seed), seed), n),
        row("vgs_weighted", lambda seed: judge(lambda _: resampled(run.sampler, cost, n, seed), seed), n),
    ]
    for found in rows:
        show(found)
    budget = round(rows[1]["gradients"])
    for factor in factors:
        for name in GRIDS:
            rows.append(chain_row(name, budget, factor, judge if factor == 1 else search, judge))
            show(rows[-1])
    facts = {package: version(package) for package in ("dxmi", "torch", "scipy")}
    facts |= {"machine": platform.machine(), "python": platform.python_version()}
    told = {"samples": n, "seeds": SEEDS, "run": read_yaml(folder / "run.yaml"), "training": trained, "tries": TRIES}
    return {**facts, **told, "grids": GRIDS, "rows": rows}


if __name__ == "__main__":
    main()
