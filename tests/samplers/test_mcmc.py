"""HMC, Metropolis, Gibbs and rejection, and what all chain samplers share (TOOLBOX rows 4, 5, 7)."""

import math

import pytest
import torch
from banana_moments import scores
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.mcmc.adjusted import DualAveraging
from dxmi_plugins.samplers.mcmc.gibbs import Gibbs
from dxmi_plugins.samplers.mcmc.hmc import HMC
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from dxmi_plugins.samplers.mcmc.mala import MALA
from dxmi_plugins.samplers.mcmc.metropolis import Metropolis
from dxmi_plugins.samplers.mcmc.rejection import Rejection
from torch import Generator
from torch.special import ndtr

from dxmi.api import ConfigError, Cost, Energy, randn
from dxmi.chains import rollout, run_chains, walk
from dxmi.testing import check_sampler


class Gaussian(Energy):
    """N(0, I) of any event shape."""

    def __init__(self, *shape):
        super().__init__()
        self.event_shape = shape

    def forward(self, x, t=None, cond=None):
        return x.square().flatten(1).sum(1) / 2

    def conditional(self, x, i, generator=None):
        return randn((len(x),), x, generator)


class Box(Energy):
    """Uniform on [-1, 1]; ``outside`` is the energy elsewhere."""

    event_shape = (1,)

    def __init__(self, outside):
        super().__init__()
        self.outside = outside

    def forward(self, x, t=None, cond=None):
        return torch.where(x.abs() <= 1, 0 * x, self.outside).sum(1)


adjusted = pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(MALA, {"step_size": 0.5}, id="MALA"),
        pytest.param(HMC, {"step_size": 1.3, "leapfrog": 2}, id="HMC"),
        pytest.param(Metropolis, {"step_size": 2.0}, id="Metropolis"),
    ],
)
CHAINS = [
    Langevin(20, 0.01),
    MALA(20, 0.1, warmup=10),
    HMC(20, 0.2, leapfrog=3),
    Metropolis(20, 0.3),
    Gibbs(20),
    Rejection(scale=1.02, log_bound=60.1),  # Z/C is .28 in 64 dimensions
]
chains = pytest.mark.parametrize("sampler", CHAINS, ids=lambda s: type(s).__name__)


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(0))


@chains
def test_one_seed_gives_the_same_chains_whatever_was_drawn_before(sampler):
    first = run_chains(Gaussian(64), sampler, 10)
    told = sampler.report()
    run_chains(Gaussian(64), sampler, 7, seed=1)
    again = run_chains(Gaussian(64), sampler, 10)
    assert torch.equal(first.samples, again.samples)
    assert str(told) == str(sampler.report())
    assert not torch.equal(first.samples, run_chains(Gaussian(64), sampler, 10, seed=1).samples)


@chains
def test_images_in_double(sampler):
    x = run_chains(Gaussian(1, 8, 8), sampler.double(), 500, watch=1).samples
    sampler.float()
    assert x.shape == (500, 1, 8, 8) and x.dtype == torch.float64
    assert abs(x.square().mean() - 1) < 0.05  # standard error of 32,000 normals: .008


@pytest.mark.parametrize("sampler", CHAINS[:-1], ids=lambda s: type(s).__name__)
def test_particles_and_any_memory_layout(sampler):
    start = noise(300, 13, 3).float()
    last = start.movedim(0, -1).contiguous().movedim(-1, 0)
    cost = Cost(Gaussian(13, 3), None, sampler.steps)
    a, b = (rollout(sampler, cost, (300, 13, 3), Generator().manual_seed(0), start=x)[-1] for x in (start, last))
    torch.testing.assert_close(a, b)
    assert torch.equal(start, noise(300, 13, 3).float())  # the user's start is left alone
    assert abs(a.square().mean() - 1) < 0.08  # standard error .013


@pytest.mark.parametrize("sampler", CHAINS[:-2], ids=lambda s: type(s).__name__)
def test_any_callable_is_a_cost_to_go(sampler):
    energy = Gaussian(64)
    costs = Cost(energy, None, sampler.steps), lambda x, t: energy(x)
    a, b = (rollout(sampler, cost, (5, 64), Generator().manual_seed(0)) for cost in costs)
    torch.testing.assert_close(a, b)


@adjusted
def test_chains_start_afresh_on_another_energy_and_from_any_state(kind, options):
    used, fresh, cost = kind(5, **options), kind(5, **options), Cost(Banana(), None, 5)
    *_, x = walk(used, Cost(Gaussian(2), None, 5), (50, 2))
    a, b = (rollout(s, cost, (50, 2), Generator().manual_seed(0), start=x) for s in (used, fresh))
    assert torch.equal(a, b)
    t = torch.full((50,), 3)
    a, b = (s.step(x.flip(0), t, cost, Generator().manual_seed(0)) for s in (used, kind(5, **options)))
    assert torch.equal(a, b)


def test_the_contract_lets_chains_mingle_where_they_say_so_or_warm_up():
    class Mingled(Metropolis):
        def step(self, x, t, *rest):
            return super().step(x - x.mean(0), t, *rest)

    class SaysSo(Mingled):
        independent = False

    check_sampler(lambda: SaysSo(3), (2,))
    check_sampler(lambda: Metropolis(5, warmup=3), (2,))
    with pytest.raises(AssertionError, match="a row depends on the other rows"):
        check_sampler(lambda: Mingled(3), (2,))


@adjusted
def test_temperature_2_doubles_the_variance(kind, options):
    n = 20_000
    x = run_chains(Gaussian(1), kind(150, tau=2.0, **options), n, watch=1).samples
    assert abs(x.var() - 2) < 4 * 2 * math.sqrt(2 / n)


@adjusted
@pytest.mark.parametrize("outside", [math.inf, math.nan])
def test_proposals_of_no_finite_energy_are_rejected(kind, options, outside):
    n = 20_000
    x = run_chains(Box(outside), kind(150, start=0.0, **options), n, watch=1).samples
    assert x.abs().max() <= 1
    assert abs(x.mean()) < 4 * math.sqrt(1 / 3 / n)
    assert abs(x.var() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)


@adjusted
@pytest.mark.parametrize("first", [1e-3, 30.0])
def test_warm_up_finds_the_target_acceptance(kind, options, first):
    sampler = kind(700, **(options | {"step_size": first, "warmup": 500}))
    sizes = [sampler.step_size for _ in walk(sampler, Cost(Banana(), None, 700), (500, 2), Generator().manual_seed(0))]
    assert abs(sampler.report()["acceptance"].mean() - sampler.target) < 0.05
    assert set(sizes[500:]) == {sampler.averaging.final()} and len(set(sizes[:500])) > 400


@pytest.mark.parametrize("acceptance", [0.0, 1.0])
def test_warm_up_survives_a_hopeless_energy(acceptance):
    averaging = DualAveraging(0.1, 0.5)
    tried = [averaging.next(acceptance) for _ in range(10_000)]
    assert all(0 < h < 1e38 for h in [*tried, averaging.final()])


@pytest.mark.parametrize("sampler", [Metropolis(2000, 1.5), HMC(300, 0.8, leapfrog=3)], ids=lambda s: type(s).__name__)
def test_moments_of_the_banana(sampler):
    assert scores(sampler, 4000, skip=sampler.steps // 5).abs().max() < 4
    assert 0.3 < sampler.report()["acceptance"].mean() < 0.95  # some proposals are rejected


def test_the_flow_of_hmc_is_reversible():
    sampler = HMC(step_size=0.1, leapfrog=20)
    cost, x, p = Cost(Banana(), None, sampler.steps), noise(200, 2), noise(2, 200).T
    end, q = sampler.flow(sampler.at(x, cost), p, cost)
    back, r = sampler.flow(end, -q, cost)
    assert (end.x - x).norm(dim=1).mean() > 1
    torch.testing.assert_close(back.x, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(-r, p, rtol=0, atol=1e-10)


def test_the_energy_error_of_hmc_falls_with_the_square_of_the_step():
    x, p, errors = noise(200, 2), noise(2, 200).T, []
    for halvings in range(3):
        sampler = HMC(step_size=0.02 / 2**halvings, leapfrog=50 * 2**halvings)
        cost = Cost(Banana(), None, sampler.steps)
        now = sampler.at(x, cost)
        end, q = sampler.flow(now, p, cost)
        errors.append((end.e - now.e + (q.square() - p.square()).sum(1) / 2).abs().mean())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.01)


def test_hmc_takes_one_gradient_for_a_leapfrog_step_and_metropolis_none():
    class Counted(Gaussian):
        gradients = 0

        def with_gradient(self, x, t=None, cond=None):
            self.gradients += 1
            return super().with_gradient(x)

    energy = Counted(2)
    run_chains(energy, HMC(10, 0.1, leapfrog=7), 5)
    assert energy.gradients == 1 + 10 * 7  # one for the start
    run_chains(energy, Metropolis(10), 5)
    assert energy.gradients == 1 + 10 * 7


def test_gibbs_forgets_a_correlated_normal_by_rho_squared_a_sweep():
    n, rho = 20_000, 0.9
    energy = GaussianMixture(means=[[0.0, 0.0]], covariances=[[[1.0, rho], [rho, 1.0]]])
    *_, x, y = walk(Gibbs(40), Cost(energy, None, 40), (n, 2), Generator().manual_seed(0))
    for i in range(2):
        lag_1 = torch.corrcoef(torch.stack([x[:, i], y[:, i]]))[0, 1]
        assert abs(lag_1 - rho**2) < 4 * (1 - rho**4) / math.sqrt(n)


def test_gibbs_is_exact_on_a_mixture():
    covariances = [[[1.0, 0.8], [0.8, 1.0]], [[1.0, -0.5], [-0.5, 0.5]]]
    energy = GaussianMixture(weights=[0.3, 0.7], means=[[-1.0, 0.0], [1.0, 1.0]], covariances=covariances)
    u, v = run_chains(energy, Gibbs(60), 20_000).samples.unbind(1)
    found = torch.stack([u, v, u * u, v * v, u * v])
    truth = 0.3 * torch.tensor([-1.0, 0, 2, 1, 0.8]) + 0.7 * torch.tensor([1.0, 1, 2, 1.5, 0.5])
    assert ((found.mean(1) - truth).abs() < 4 * found.std(1) / math.sqrt(20_000)).all()


def test_gibbs_asks_for_an_energy_with_conditionals():
    with pytest.raises(ConfigError, match="^energy: Banana has no known conditionals, which gibbs needs"):
        run_chains(Banana(), Gibbs(5), 3)
    with pytest.raises(ConfigError, match="^energy: function is no dxmi.api.Cost"):
        rollout(Gibbs(5), lambda x, t: x.sum(1), (3, 2))


def bumps():
    """``p = .3 N(-2, .5^2) + .7 N(1, 1)`` and its distribution function."""
    energy = GaussianMixture(weights=[0.3, 0.7], means=[[-2.0], [1.0]], covariances=[0.25, 1.0])
    return energy, lambda x: 0.3 * ndtr((x + 2) / 0.5) + 0.7 * ndtr(x - 1)


def test_rejection_is_exact():
    n, (energy, cdf) = 20_000, bumps()
    f = cdf(run_chains(energy, Rejection(scale=2.5, log_bound=0.9), n).samples[:, 0].sort().values)
    steps = torch.arange(n + 1) / n
    assert max((f - steps[:-1]).max(), (steps[1:] - f).max()) < 1.63 / math.sqrt(n)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_the_rate_of_rejection_is_z_over_c(tau):
    sampler = Rejection(scale=1.5, log_bound=1.7, tau=tau)
    x = run_chains(Gaussian(1), sampler, 20_000).samples
    told, rate = sampler.report(), math.sqrt(2 * math.pi * tau) / math.exp(1.7)
    assert abs(told["acceptance_rate"] - rate) < 4 * math.sqrt(rate * (1 - rate) / told["proposals"])
    assert abs(x.var() - tau) < 4 * tau * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("outside", [math.inf, math.nan])
def test_rejection_never_accepts_what_has_no_finite_energy(outside):
    assert run_chains(Box(outside), Rejection(scale=1.0, log_bound=1.5), 5000).samples.abs().max() <= 1


def test_rejection_reports_a_violated_envelope():
    complaint = (
        r"^log_bound: -1.0 is too low: exp\(-E/tau\) is exp\((1\..*)\) times the bound at x = \(.*\); raise it by more"
    )
    with pytest.raises(ConfigError, match=complaint) as error:
        run_chains(bumps()[0], Rejection(scale=2.5, log_bound=-1.0), 1000)
    assert "\n" not in str(error.value)


def test_rejection_gives_up():
    with pytest.raises(ConfigError, match="^most: 0 of 1000 proposals were accepted; lower log_bound"):
        run_chains(Gaussian(2), Rejection(scale=1.0, log_bound=30.0, most=100), 10)


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (HMC, {"leapfrog": 0}, "leapfrog: 0 is not positive"),
        (HMC, {"step_size": -1.0}, "step_size: -1.0 is not positive"),
        (HMC, {"tau": 0.0}, "tau: 0.0 is not positive"),
        (Metropolis, {"step_size": 0.0}, "step_size: 0.0 is not positive"),
        (Metropolis, {"steps": 0}, "steps: 0 is not positive"),
        (Metropolis, {"steps": 5, "warmup": 5}, "warmup: 5 of 5 steps"),
        (Gibbs, {"steps": 0}, "steps: 0 is not positive"),
        (Gibbs, {"start": -1.0}, "start: -1.0 is negative"),
        (Rejection, {"scale": -1.0, "log_bound": 0.0}, "scale: -1.0 is not positive"),
        (Rejection, {"scale": 1.0, "log_bound": math.inf}, "log_bound: inf is not finite"),
        (Rejection, {"scale": 1.0, "log_bound": 0.0, "most": 0}, "most: 0 is not positive"),
        (Rejection, {"scale": 1.0, "log_bound": 0.0, "tau": 0.0}, "tau: 0.0 is not positive"),
    ],
)
def test_options_out_of_range_are_refused_by_name(kind, options, named):
    with pytest.raises(ConfigError, match="^" + named):
        kind(**options)


@pytest.mark.parametrize("sampler", [MALA(steps=3, step_size=0.1), HMC(steps=3, step_size=0.1, leapfrog=2)])
def test_a_point_is_remembered_only_while_it_is_the_same_under_the_same_cost(sampler):
    normal = GaussianMixture(means=[[0.0, 0.0]])
    J = Cost(normal, None, 3)
    x = sampler.initial((8, 2), Generator().manual_seed(0))
    for k in range(2):
        x = sampler.step(x, torch.full((8,), k), J, Generator().manual_seed(k))
    torch.testing.assert_close(sampler.at(x, J).e, normal(x))
    other = Cost(2 * normal, None, 3)
    torch.testing.assert_close(sampler.at(x, other).e, 2 * normal(x))
    x.clamp_(-0.5, 0.5)
    torch.testing.assert_close(sampler.at(x, J).e, normal(x))
