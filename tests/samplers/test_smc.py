"""Sequential Monte Carlo: an unbiased Z, known values of log Z, and equally weighted particles."""

import math

import pytest
import torch
from conftest import ROOT
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.mcmc.smc import SMC, systematic
from torch import Generator

from dxmi.api import ConfigError, Cost, Energy
from dxmi.chains import rollout, run_chains
from dxmi.config import ChainsConfig, Checked, read_yaml


class Normal(Energy):
    """``||x - centre||^2/(2*variance)``, not normalised."""

    def __init__(self, centre=0.0, variance=1.0, dim=2):
        super().__init__()
        self.centre, self.variance, self.event_shape = centre, variance, (dim,)

    def forward(self, x, t=None, cond=None):
        return (x - self.centre).square().sum(1) / (2 * self.variance)


def test_resampling_draws_each_particle_about_as_often_as_it_weighs():
    generator = Generator().manual_seed(0)
    weights = torch.rand(20, generator=generator).softmax(0) ** 4
    weights /= weights.sum()
    counts = torch.stack([systematic(weights, generator).bincount(minlength=20) for _ in range(4000)]).double()
    expected = 20 * weights.double()
    assert ((counts - expected).abs() < 1).all() and (counts.sum(1) == 20).all()
    assert ((counts.mean(0) - expected).abs() < 4 * 0.5 / math.sqrt(4000)).all()  # a 0-1 variable's std is at most .5


def test_z_is_unbiased_with_four_particles():
    runs, sampler = 1000, SMC(steps=2, scale=1.0, moves=1, step_size=0.7, power=1.0, threshold=0.9)
    energy, generator, found = Normal(centre=1.0, variance=0.25, dim=1), Generator().manual_seed(0), []
    for _ in range(runs):
        rollout(sampler, Cost(energy, None, sampler.steps), (4, 1), generator)
        found.append(sampler.report()["log_z"] - math.log(2 * math.pi * 0.25) / 2)
    log_ratio = torch.tensor(found, dtype=torch.float64)
    ratio = log_ratio.exp()
    assert (ratio.mean() - 1).abs() < 3 * ratio.std() / math.sqrt(runs)
    assert log_ratio.mean() < -0.1  # four are few: the logarithm is biased


def test_a_density_that_is_the_start_but_for_a_constant():
    class Shifted(Normal):
        def forward(self, x, t=None, cond=None):
            return super().forward(x) + 7.5

    found = run_chains(Shifted(variance=4.0), SMC(steps=5, scale=2.0), 50).diagnostics
    assert found["log_z"] == pytest.approx(math.log(2 * math.pi * 4) - 7.5, abs=1e-5)
    assert found["ess_least"] == pytest.approx(50, rel=1e-5) and found["resampled"] == 1


@pytest.mark.parametrize("leapfrog", [1, 5])
def test_temperature(leapfrog):
    sampler = SMC(steps=20, scale=2.0, step_size=1.0, leapfrog=leapfrog, tau=0.5)
    drawn = run_chains(Normal(centre=1.0), sampler, 20_000)
    assert drawn.diagnostics["log_z"] == pytest.approx(math.log(2 * math.pi * 0.5), abs=0.03)
    assert drawn.samples.mean(0).tolist() == pytest.approx([1.0, 1.0], abs=0.03)
    assert drawn.samples.var(0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)


def configured(name, **changes):
    """The run of a config file, with some keys changed."""
    run = Checked(ChainsConfig, read_yaml(ROOT / "configs" / name, [f"--{k}={v}" for k, v in changes.items()])).build()
    return run_chains(run.energy, run.sampler, run.chains, seed=run.seed), run


@pytest.mark.parametrize("preset", ["gmm9", "gmm25"])
def test_log_z_and_weights_of_mixtures(preset):
    drawn, run = configured("gmm25_smc.yaml", **{"energy.preset": preset})
    assert drawn.diagnostics["log_z"] == pytest.approx(0, abs=0.05)
    modes = run.energy.modes
    shares = torch.cdist(drawn.samples, modes).argmin(1).bincount(minlength=len(modes)) / run.chains
    assert (shares * len(modes) - 1).abs().max() < 0.2


def test_log_z_of_the_funnel():
    drawn, _ = configured("funnel_smc.yaml", chains=2000)
    assert drawn.diagnostics["log_z"] == pytest.approx(0, abs=0.3)
    assert drawn.samples[:, 0].std().item() == pytest.approx(3, abs=0.9)  # mouth and neck are hard to reach


def test_resampling_happens_where_the_weights_are_uneven():
    far, options = GaussianMixture(means=[[4.0, 4.0]], covariances=0.1), {"steps": 20, "scale": 1.0, "step_size": 0.3}
    counts = [run_chains(far, SMC(**options, threshold=t), 200).diagnostics["resampled"] for t in (0.0, 0.5, 1.0)]
    assert counts[0] == 1 < counts[1] < counts[2] == 20  # the last level always


def test_particles_without_energy_die_and_none_left_is_an_error():
    class Half(Normal):
        def forward(self, x, t=None, cond=None):
            return torch.where(x[:, 0] < 0, math.nan, super().forward(x))

    drawn = run_chains(Half(), SMC(steps=10, step_size=0.8), 4000)
    assert (drawn.samples[:, 0] >= 0).all()
    assert drawn.diagnostics["log_z"] == pytest.approx(math.log(2 * math.pi / 2), abs=0.1)
    with pytest.raises(FloatingPointError, match="no particle has a finite energy at level 1"):
        run_chains(Normal(centre=math.nan), SMC(steps=2), 10)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "steps: 0 is not positive"),
        ({"scale": 0.0}, "scale: 0.0 is not positive"),
        ({"moves": 0}, "moves: 0 is not positive"),
        ({"step_size": -1.0}, "step_size: -1.0 is not positive"),
        ({"leapfrog": 0}, "leapfrog: 0 is not positive"),
        ({"power": 0.0}, "power: 0.0 is not positive"),
        ({"threshold": 1.5}, "threshold: 1.5 is no share"),
        ({"tau": 0.0}, "tau: 0.0 is not positive"),
    ],
)
def test_wrong_options(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        SMC(**options)
