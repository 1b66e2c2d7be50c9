"""examples/benchmarks/vgs_against_chains.py counts what a sample asks of the energy."""

import pytest
import torch
from conftest import load_benchmark
from dxmi_plugins.energies.informed import InformedValue
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.vgs import VGS

from dxmi.api import Cost
from dxmi.chains.density import known_cost

ROWS = 8


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("vgs_against_chains")


def gradients(benchmark, sampler, cost):
    with benchmark.counting() as asked:
        benchmark.ends(sampler.eval(), cost, ROWS, seed=0)
    return asked["gradients"] / ROWS


@pytest.mark.parametrize(
    ("covariance", "draw", "each"), [("fixed", "posterior", 1), ("fixed", "value", 1), ("posterior", "posterior", 3)]
)
def test_a_step_costs_one_gradient_and_one_more_for_each_second_derivative(benchmark, covariance, draw, each):
    energy = GaussianMixture("gmm25")
    sampler = VGS(steps=5, start=9.0, covariance=covariance, draw=draw)
    cost = Cost(energy, InformedValue(energy, steps=5), 5)
    assert gradients(benchmark, sampler, cost) == 5 * each


@pytest.mark.parametrize(("name", "more"), [("mala", {1}), ("hmc", {1}), ("annealed_langevin", {0, 1})])
def test_every_setting_of_a_chain_takes_the_budget_and_at_most_one_gradient_more(benchmark, name, more):
    energy, found = GaussianMixture("gmm25"), set()
    settings = benchmark.settings(name, 30)
    for setting in settings[:: len(settings) // 4 | 1]:  # an odd stride meets both of the last option's values
        sampler = benchmark.built(setting)
        found.add(gradients(benchmark, sampler, known_cost(energy, sampler)) - 30)
    assert found == more


def test_resampling_by_weights_gives_the_target_shares(benchmark):
    """Without weights one untrained step leaves both modes, of shares .8 and .2, about alike."""
    energy = GaussianMixture(means=[[-2.0], [2.0]], weights=[4.0, 1.0])
    sampler = VGS(steps=1, chain="ve", first=9.0, last=9.0, start=3.0).eval()
    cost = Cost(energy, InformedValue(energy, steps=1, start=3.0), 1)
    right = (benchmark.resampled(sampler, cost, 20_000, 0) > 0).double().mean().item()
    plain = (benchmark.ends(sampler, cost, 20_000, 0) > 0).double().mean().item()
    exact = (energy.sample(200_000, torch.Generator().manual_seed(0)) > 0).double().mean().item()
    assert abs(right - exact) < 0.02 < abs(plain - exact)
