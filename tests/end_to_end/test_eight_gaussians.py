"""examples/benchmarks/eight_gaussians.py: its figures of exact draws, and what its last runs reached."""

import json
import math
import statistics

import pytest
import torch
from conftest import ROOT, load_benchmark
from torch import Generator

EXACT = 1 - math.exp(-4.5)  # of a Gaussian in the plane within 3 standard deviations


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("eight_gaussians")


def test_modes_of_exact_draws(benchmark):
    """The share inside, and shares of modes, within 4.5 standard errors."""
    n = 40_000
    found = benchmark.modes(benchmark.TARGET.sample(n, Generator().manual_seed(0)))
    assert found["inside"] == pytest.approx(EXACT, abs=4.5 * math.sqrt(EXACT * (1 - EXACT) / n))
    error = 4.5 * 8 * math.sqrt(1 / 8 * 7 / 8 / n)
    assert 1 - error < found["least_share"] < 1 < found["most_share"] < 1 + error


def test_modes_by_hand(benchmark):
    """Three samples of four in one mode, one of them beyond 3 standard deviations, and nobody in six modes."""
    first, second, *_ = benchmark.TARGET.modes
    away = torch.tensor([3.1 * benchmark.STD, 0.0])
    found = benchmark.modes(torch.stack([first, first, first + away, second]))
    assert found == {"inside": 0.75, "least_share": 0.0, "most_share": 6.0}


def test_ranking_of_the_density_itself(benchmark):
    """Lower than a draw whose energy is s above its mode's are eight discs, of 2 pi s std^2 each; s is 1 on average."""
    discs = 8 * 2 * math.pi * benchmark.STD**2 / (2 * benchmark.BOX) ** 2
    error = 4.5 * math.sqrt(2 * discs / benchmark.POINTS)
    assert benchmark.ranking(benchmark.TARGET) == pytest.approx(1 - discs, abs=error)
    assert benchmark.ranking(lambda x: -benchmark.TARGET(x)) == pytest.approx(discs, abs=error)
    assert benchmark.ranking(lambda x: 0 * x[:, 0]) == 0.5


@pytest.mark.parametrize("way", ["dxmi", "ebm_vgs"])
def test_the_kept_runs_reach_what_they_should(way):
    """Medians of three seeds of both ways whose samples have to be those of the data."""
    row = json.loads((ROOT / "examples" / "benchmarks" / "eight_gaussians.json").read_text())["ways"][way]
    assert {run["seed"] for run in row["runs"]} == {0, 1, 2} and {"machine", "python", "torch"} <= row.keys()
    median = row["median"]
    assert median == {name: statistics.median(run[name] for run in row["runs"]) for name in median}
    assert median["inside"] >= 0.95 and median["auroc"] >= 0.98 and median["cpu_seconds"] <= 180
    assert median["least_share"] >= 0.5 and median["most_share"] <= 2
