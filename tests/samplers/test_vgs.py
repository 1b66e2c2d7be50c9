"""Value-gradient sampling against closed forms (MATH 4): Bellman, weights, bounds."""

import math
import re

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.energies.informed import InformedValue
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from dxmi_plugins.samplers.vgs import VGS, curvature, hadamard_rows, variances
from small_players import Pushed
from torch import Generator

from dxmi.api import ConfigError, Cost, Energy
from dxmi.chains import estimates, no_log_weights, path_log_weights, walk, weigh, weigh_exact
from dxmi.config import GameConfig, LearningConfig, RatesConfig
from dxmi.game.algorithm import build_game
from dxmi.game.rollouts import perturb


def exact(preset="gmm9", drift="value", **options):
    target, sampler = GaussianMixture(preset), VGS(drift=drift, draw=drift, **options)
    return Cost(target, Pushed(target, sampler), sampler.steps), sampler


@pytest.mark.parametrize("chain", ["ve", "vp"])
def test_the_closed_form_values_satisfy_the_bellman_equation(chain):
    """V_t(x) = -tau*log of the integral of exp(-V_{t+1}(y)/tau)*q~(x|y) over y, in one dimension by quadrature."""
    target = GaussianMixture(weights=[1.0, 3.0], means=[[-2.0], [1.0]], covariances=[0.3, 0.5])
    sampler = VGS(6, chain, first=0.4, last=0.1).double()
    V = Pushed(target, sampler)
    y = torch.linspace(-12, 12, 4801, dtype=torch.float64)[:, None]
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    J = Cost(target, V, 6)
    for k in range(6):
        t = torch.full((len(y),), k)
        law = sampler.noising(y, t)
        log_q = -(((x.T - law.mean) / law.std) ** 2) / 2 - law.std.log() - math.log(2 * math.pi) / 2
        integral = (log_q - J(y, t + 1)[:, None]).logsumexp(0) + math.log(24 / 4800)
        torch.testing.assert_close(J(x, t[:7]), -integral, rtol=0, atol=1e-12)


def test_a_quadratic_energy_has_the_known_recursion():
    """With the drift of MATH (4.3) and V = P x^2/2, TD gives P - a*P^2 + a^2*P^3, a = s^2/tau (TOOLBOX row 32)."""
    tau, s2, P = 0.7, 0.2, 1.3

    class Quadratic(Energy):
        event_shape = (1,)

        def forward(self, x, t=None, cond=None):
            return P * x.square().sum(1) / 2

    sampler = VGS(1, "ve", first=s2, last=s2, tau=tau).double()
    J = Cost(Quadratic(), None, 1)
    x, t = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    step = sampler(x, t, J)
    expected = P * (step.mean.square() + step.std.square()).sum(1) / 2  # of J(x') under the step
    a = s2 / tau
    found = expected + sampler.running_cost(x, t, step)
    torch.testing.assert_close(found, (P - a * P**2 + a**2 * P**3) * x[:, 0] ** 2 / 2 + P * s2 / 2)


@pytest.mark.parametrize(("chain", "drift"), [("ve", "value"), ("vp", "posterior")])
def test_log_weights_are_those_of_the_formula(chain, drift):
    """MATH (4.7), written with the drifts m and the noises eps of each step."""
    torch.manual_seed(0)
    J, sampler = exact(steps=5, chain=chain, drift=drift)
    sampler.double()
    xs = torch.stack(list(walk(sampler, J, (20, 2))))
    log_w = -J.energy(xs[-1]) + (xs[0] / sampler.log_std.exp()).square().sum(1) / 2
    log_w = log_w + 2 * (sampler.log_std + math.log(2 * math.pi) / 2)
    for k in range(5):
        a, step = sampler.a[k], sampler(xs[k], torch.full((20,), k), J)
        m, eps = a * xs[k] - step.mean, (xs[k + 1] - step.mean) / step.std
        log_w = log_w + 2 * a.log() - (m / step.std).square().sum(1) / 2 + (m * eps / step.std).sum(1)
    torch.testing.assert_close(path_log_weights(sampler, J, xs, 1.0), log_w.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("chain", ["ve", "vp"])
@pytest.mark.parametrize("covariance", ["fixed", "posterior"])
def test_paths_weighed_on_the_way_weigh_the_same(chain, covariance):
    J, sampler = exact(steps=5, chain=chain, drift="posterior", covariance=covariance)
    sampler.eval()
    xs = torch.stack(list(walk(sampler, J, (20, 2), Generator().manual_seed(3))))
    drawn = weigh(sampler, J, 20, generator=Generator().manual_seed(3))
    assert torch.equal(drawn.samples, xs[-1])
    torch.testing.assert_close(drawn.log_w, path_log_weights(sampler, J, xs, 1.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("drift", "gap"), [("value", 0.75), ("posterior", 0.6)])
def test_exact_values_give_an_honest_log_z(drift, gap):
    torch.manual_seed(0)
    J, sampler = exact(steps=30, drift=drift)
    found = estimates(weigh(sampler, J, 20_000), weigh_exact(sampler, J, J.energy.sample(20_000)))
    assert abs(found["log_z"]) < 0.03 and abs(found["log_z_forward"]) < 0.03
    assert -gap < found["elbo"] < 0 < found["eubo"] < gap
    assert found["ess"] > 0.2


@pytest.mark.parametrize(
    ("chain", "least"),
    [
        ({"chain": "ve", "schedule": "exponential", "first": 4.0, "last": 0.05, "start": 7.0}, 0.9),
        ({"chain": "vp", "first": 0.2, "last": 0.1}, 0.55),
    ],
)
def test_posterior_variances_leave_little_to_weigh(chain, least):
    """The same values with each coordinate's posterior variance: from an ESS of .64 to .95 on nine Gaussians (ve)."""
    torch.manual_seed(0)
    chain["steps"] = 30
    found = []
    for covariance in ("fixed", "posterior"):
        J, sampler = exact(drift="posterior", covariance=covariance, **chain)
        found.append(estimates(weigh(sampler.eval(), J, 4000)))
    assert found[1]["ess"] > found[0]["ess"] + 0.1 and found[1]["ess"] > least
    assert all(abs(f["log_z"]) < 4 * math.sqrt((1 / f["ess"] - 1) / 4000) + 0.01 for f in found)
    assert found[0]["elbo"] < found[1]["elbo"] < 0


def test_probes_give_the_diagonal_of_the_hessian():
    torch.manual_seed(0)
    A = torch.randn(8, 8, dtype=torch.float64)
    H, x, t = A @ A.T, torch.randn(3, 8, dtype=torch.float64), torch.zeros(3, dtype=torch.long)

    def quadratic(x, t):
        return (x @ H * x).sum(1) / 2

    g, h = curvature(quadratic, x, t, 8)
    torch.testing.assert_close(g, x @ H)
    torch.testing.assert_close(h, H.diagonal().expand(3, 8))
    near = torch.tensor([[float(i % 4 == j % 4) for j in range(8)] for i in range(8)], dtype=torch.float64)
    torch.testing.assert_close(curvature(quadratic, x, t, 4)[1], (H * near).sum(1).expand(3, 8))
    _, separable = curvature(lambda x, t: x.pow(4).sum(1), x, t, 1)
    torch.testing.assert_close(separable, 12 * x.square())
    assert hadamard_rows(3, 5).shape == (4, 5)


def test_it_learns_a_mixture_of_nine_in_a_few_rounds():
    torch.manual_seed(0)
    target = GaussianMixture("gmm9")
    sampler = VGS(30, "ve", "exponential", first=4.0, last=0.05, start=7.0)
    value = InformedValue(target, 30, start=7.0, width=64, depth=2)
    learning = LearningConfig(lr=RatesConfig(value=1e-3, std=1e-2), betas=(0.9, 0.999))
    game = build_game(target, sampler, value, GameConfig(warmup=0, sweep=True), learning, Accelerator(cpu=True))
    for _ in range(30):
        log = game.round(None, (128, 2))
    assert {"value_loss", "start_loss", "e_sample"} <= log.keys()
    sampler.eval()
    drawn = weigh(sampler, Cost(target, value, 30), 2000)
    found = estimates(drawn)
    assert abs(found["log_z"]) < 0.15 and found["ess"] > 0.2
    assert torch.cdist(drawn.samples, target.modes).argmin(1).bincount(minlength=9).min() > 60  # of 222


def test_an_informed_value_is_exact_at_both_ends_before_it_learns():
    torch.manual_seed(0)
    target = GaussianMixture("gmm9")
    value, x = InformedValue(target, 20, start=7.0), 5 * torch.randn(50, 2)
    start = value(x, torch.zeros(50, dtype=torch.long))
    torch.testing.assert_close(start, x.square().sum(1) / (2 * 7.0**2))
    J, end = Cost(target, value, 20), torch.full((50,), 20)
    torch.testing.assert_close(J(x, end), target(x))
    late = InformedValue(target, 20, start=7.0, low=0.999999)  # w is near 1 at every other step
    torch.testing.assert_close(late(x, torch.full((50,), 19)), target(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chain", ["ve", "vp"])
def test_data_are_carried_to_the_start_by_the_noising_chain(chain):
    """In one leap as in T steps: the mean and std of x_0 given x_T = 1, within 4 standard errors."""
    sampler, n = VGS(6, chain, first=0.4, last=0.1), 20_000
    x = torch.ones(n, 1, 2)
    leap = perturb(sampler, x, Generator().manual_seed(0))
    assert torch.equal(leap, perturb(sampler, x, Generator().manual_seed(0)))
    torch.manual_seed(0)
    for k in reversed(range(6)):
        x = sampler.noising(x, torch.full((n,), k)).sample()
    for found in (leap, x):
        alpha, sigma = (part.item() for part in sampler.marginal(torch.tensor(0)))
        assert found.mean().item() == pytest.approx(alpha, abs=4 * sigma / math.sqrt(2 * n))
        assert found.std().item() == pytest.approx(sigma, abs=4 * sigma / math.sqrt(4 * n))


def test_weights_ask_on_the_samplers_device():
    assert no_log_weights(VGS(3).to("meta")) == ""


def test_schedules_run_from_the_first_variance_to_the_last():
    for schedule in ("linear", "quadratic", "exponential"):
        s2 = variances(schedule, 0.4, 0.1, 5)
        torch.testing.assert_close(s2[[0, -1]], torch.tensor([0.4, 0.1]))
        assert (s2.diff() < 0).all()
    assert variances("constant", 0.4, 0.1, 5).tolist() == pytest.approx([0.4] * 5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"first": 0.0}, "first: 0.0 is not positive"),
        ({"last": -1.0}, "last: -1.0 is not positive"),
        ({"first": 1.5}, "first: the variances 1.5 and 0.1 of a vp chain"),
        ({"tau": 0.0}, "tau: 0.0"),
        ({"clip": 0.0}, "clip: 0.0"),
    ],
)
def test_impossible_chains_are_refused(options, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        VGS(**options)


def test_weights_are_refused_where_steps_are_not_told():
    J, _ = exact(steps=2)
    with pytest.raises(ConfigError, match="Langevin does not tell its transitions"):
        weigh(Langevin(steps=2), J, 3)


def test_clipping_knows_the_size_of_a_right_gradient():
    """The state is noise alone where V_t = tau*||x||^2/(2*sigma_t^2): there the norm is tau*||x||/sigma_t^2."""
    sampler = VGS(4, "ve", "linear", first=0.4, last=0.1, tau=0.5, drift="posterior", clip=1.5)
    t = torch.arange(4)
    sigma = sampler.marginal(t)[1]
    x = sigma[:, None] * torch.tensor([1.0, 1.0, 1.0, 1.0]) * torch.tensor([1.0, 1.4, 1.6, 20.0])[:, None]

    def noise_alone(x, t):
        return 0.5 * x.square().sum(1) / (2 * sigma[t] ** 2)

    drift = ((x - sampler(x, t, noise_alone).mean) / (sampler.s[t] ** 2 / sigma)[:, None]).norm(dim=1)
    assert torch.allclose(drift, torch.tensor([2.0, 2.8, 3.0, 3.0]))
