"""Langevin chains, plain and Metropolis-adjusted: laws, temperatures, what goes wrong (TOOLBOX rows 6, 8-10)."""

import math

import pytest
import torch
from banana_moments import scores
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from dxmi_plugins.samplers.mcmc.mala import MALA
from torch import Generator
from torch.distributions import Normal

from dxmi.api import ConfigError, Cost, Energy
from dxmi.chains import run_chains


class Quadratic(Energy):
    """N(0, 1) in one dimension."""

    event_shape = (1,)

    def forward(self, x, t=None, cond=None):
        return x.square().sum(1) / 2


class Quartic(Energy):
    event_shape = (2,)

    def forward(self, x, t=None, cond=None):
        return x.pow(4).sum(1)


class Wells(Energy):
    """Four modes at (+-1, +-1)."""

    event_shape = (2,)

    def forward(self, x, t=None, cond=None):
        return (x.square() - 1).square().sum(1)


@pytest.mark.parametrize(
    ("options", "variance"),
    [
        ({"step_size": 0.5}, 1 / (1 - 0.25)),
        ({"step_size": 0.5, "tau": 2.0}, 2 / (1 - 0.25)),
        ({"step_size": 0.02, "noise": math.sqrt(0.02)}, 0.5 / (1 - 0.01)),  # noise^2/(2h) = .5
    ],
)
def test_variance_of_langevin_on_a_normal(options, variance):
    n, sampler = 20_000, Langevin(steps=200, **options)
    x = run_chains(Quadratic(), sampler, n, watch=1).samples
    assert abs(x.var() - variance) < 4 * variance * math.sqrt(2 / n)


def test_step_and_noise_imply_a_temperature():
    assert Langevin(step_size=0.02, noise=math.sqrt(0.02)).report()["implied_temperature"] == pytest.approx(0.5)
    assert Langevin(step_size=0.3, tau=2.0).report()["implied_temperature"] == pytest.approx(2)
    assert Langevin(noise=0.0).report()["implied_temperature"] == 0


def test_no_noise_descends_to_a_mode():
    drawn = run_chains(Wells(), Langevin(steps=300, step_size=0.02, noise=0.0), 200)
    assert Wells().with_gradient(drawn.samples)[1].norm(dim=1).max() < 1e-4
    assert drawn.energies.max() < 1e-8
    assert len(drawn.traces) == 0  # states along a descent are no draws


def test_clip_bounds_the_drift():
    x = 3 * torch.randn(100, 2, generator=Generator().manual_seed(0))
    g = Quartic().with_gradient(x)[1].norm(dim=1)
    sampler = Langevin(steps=1, step_size=0.1, noise=0.0, clip=2.0)
    moved = run_chains(Quartic(), sampler, 100, start=x).samples
    assert 0 < (g < 2).sum() < 100
    torch.testing.assert_close((moved - x).norm(dim=1), 0.1 * g.clamp(max=2))


def test_divergence_names_the_chain():
    with pytest.raises(FloatingPointError, match=r"chain \d+ is not finite at step \d+; try a smaller step size"):
        run_chains(Quartic(), Langevin(steps=50, step_size=1.0), 100)


def test_a_start_that_is_not_finite_names_the_chain():
    start = torch.zeros(4, 1)
    start[2] = math.nan
    with pytest.raises(ConfigError, match="start: chain 2 is not finite"):
        run_chains(Quadratic(), Langevin(steps=5), 4, start=start)


@pytest.mark.parametrize("options", [{}, {"tau": 0.3}, {"drift_clip": 0.5, "tau": 2.0}])
def test_ratio_of_mala_is_that_of_the_densities(options):
    sampler, energy = MALA(step_size=0.2, **options).double(), Banana()
    x = 2 * torch.randn(500, 2, dtype=torch.float64, generator=Generator().manual_seed(0))
    cost = Cost(energy, None, sampler.steps)
    new, log_ratio = sampler.propose(sampler.at(x, cost), cost, Generator().manual_seed(1))

    def log_q(end, begin):
        e, g = energy.with_gradient(begin)
        norm = g.norm(dim=1, keepdim=True)
        g = g * (options.get("drift_clip", math.inf) / norm).clamp(max=1)
        return Normal(begin - 0.2 * g, math.sqrt(0.4 * sampler.tau)).log_prob(end).sum(1) - e / sampler.tau

    torch.testing.assert_close(log_ratio, log_q(x, new.x) - log_q(new.x, x), rtol=1e-11, atol=1e-11)


def test_mala_is_exact_on_the_banana():
    sampler = MALA(steps=3000, step_size=0.3, start=2.0, drift_clip=5.0)
    assert scores(sampler, 4000, skip=500).abs().max() < 3
    assert sampler.report()["acceptance"].min() > 0.2


def test_without_drift_clip_chains_of_mala_freeze_though_the_mean_acceptance_looks_healthy():
    sampler = MALA(steps=500, step_size=0.3, start=2.0)
    drawn = run_chains(Banana(b=0.5), sampler, 4000)
    assert drawn.diagnostics["chains_that_never_moved"] > 100
    assert drawn.diagnostics["acceptance"]["mean"] > 0.75
    assert scores(sampler, 4000, skip=100).abs().max() > 8


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (Langevin, {"step_size": 0.0}, "step_size: 0.0 is not positive"),
        (Langevin, {"step_size": math.inf}, "step_size: inf"),
        (Langevin, {"noise": -0.1}, "noise: -0.1 is negative"),
        (Langevin, {"clip": 0.0}, "clip: 0.0 is not positive"),
        (Langevin, {"tau": -1.0}, "tau: -1.0 is not positive"),
        (Langevin, {"steps": 0}, "steps: 0 is not positive"),
        (Langevin, {"start": -1.0}, "start: -1.0 is negative"),
        (Langevin, {"start": math.nan}, "start: nan"),
        (MALA, {"step_size": -1.0}, "step_size: -1.0 is not positive"),
        (MALA, {"drift_clip": 0.0}, "drift_clip: 0.0 is not positive"),
        (MALA, {"tau": 0.0}, "tau: 0.0 is not positive"),
        (MALA, {"steps": 10, "warmup": 10}, "warmup: 10 of 10 steps leave none"),
        (MALA, {"steps": 10, "warmup": -1}, "warmup: -1 "),
        (MALA, {"target": 1.0}, "target: 1.0 is no acceptance"),
    ],
)
def test_options_out_of_range_are_refused_by_name(kind, options, named):
    with pytest.raises(ConfigError, match="^" + named):
        kind(**options)


@pytest.mark.parametrize(("v", "s2"), [(0.5, 0.25), (1.0, 0.5)])
def test_denoising_langevin_is_langevin_on_the_noisy_density(v, s2):
    """``D(x) + sqrt(2)*sigma*eps`` on N(0, v) has variance 2(v+s2)^2/(2v+s2), D the posterior mean (TOOLBOX row 25)."""
    noisy = GaussianMixture(means=[[0.0]], covariances=v).convolved(s2)
    x = torch.linspace(-2, 2, 9)[:, None]
    torch.testing.assert_close(x - s2 * noisy.with_gradient(x)[1], x * v / (v + s2))
    drawn = run_chains(noisy, Langevin(steps=60, step_size=s2), 100_000).samples
    assert drawn.var().item() == pytest.approx(2 * (v + s2) ** 2 / (2 * v + s2), rel=0.015)
