"""Value-gradient sampling on the sphere: geometry, diffusion, costs, and a density that is learned."""

import math
import re

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.sphere_vgs import SphereVGS, exponential, tangent
from torch import Generator

from dxmi.api import ConfigError, Cost, Energy
from dxmi.chains import rollout, walk, weigh
from dxmi.config import GameConfig, LearningConfig, RatesConfig
from dxmi.game.algorithm import build_game
from dxmi.game.targets import RedrawnTarget


class VonMisesFisher(Energy):
    """``-kappa*mu.x`` with mu along the last axis; in three dimensions E mu.x is coth(kappa) - 1/kappa."""

    def __init__(self, kappa, dim=3):
        super().__init__()
        self.kappa, self.event_shape = kappa, (dim,)

    def forward(self, x, t=None, cond=None):
        return -self.kappa * x[:, -1]


def flat(x, t):
    """A value that says nothing: the chain is its own noising chain."""
    return 0 * x.sum(1)


def on_sphere(n, dim, seed=0):
    return SphereVGS(1).double().initial((n, dim), Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [2, 3, 272])
def test_chains_stay_on_the_sphere(dim):
    sampler = SphereVGS(300, first=0.5, last=0.01)
    J = Cost(VonMisesFisher(20.0, dim), None, 300)
    for x in walk(sampler, J, (50, dim), Generator().manual_seed(0)):
        assert x.dtype == torch.float32 and (x.double().norm(dim=1) - 1).abs().max() < 1e-6


def test_the_exponential_map_follows_great_circles():
    x = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(5, 3)
    angle = torch.tensor([0.0, 1e-9, math.pi / 6, math.pi / 2, 3.0], dtype=torch.float64)
    v = angle[:, None] * torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    ends = torch.stack([0.6 * angle.sin(), 0.8 * angle.sin(), angle.cos()], 1)
    torch.testing.assert_close(exponential(x, v), ends, rtol=0, atol=1e-15)


def test_tangents_are_at_right_angles_and_stay_as_they_are():
    x, u = on_sphere(20, 5), on_sphere(20, 5, seed=1)
    v = tangent(x, u)
    assert (v * x).sum(1).abs().max() < 1e-15
    torch.testing.assert_close(tangent(x, v), v, rtol=0, atol=1e-15)
    torch.testing.assert_close(v + (x * u).sum(1, keepdim=True) * x, u)


@pytest.mark.parametrize("drift", ["value", "posterior"])
def test_a_step_and_its_target_by_hand(drift):
    """m = s^2/tau*P_x grad V; the value's target is V(x') + tau*|m|^2/(2 s^2)."""
    kappa, tau, s2 = 3.0, 0.5, 0.2
    energy = VonMisesFisher(kappa)
    sampler = SphereVGS(1, first=s2, last=s2, tau=tau, drift=drift).double()
    J = Cost(energy, None, 1)
    x = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    t = torch.zeros(1, dtype=torch.long)
    step = sampler(x, t, J)
    m = s2 / tau * -kappa * torch.tensor([[-0.48, 0.0, 0.36]], dtype=torch.float64)  # P_x e_3 = e_3 - 0.8 x
    torch.testing.assert_close(step.mean, x - m)
    assert sampler.running_cost(x, t, step).item() == pytest.approx(s2 * (kappa * 0.6) ** 2 / (2 * tau))
    torch.manual_seed(0)
    eps = torch.randn(1, 3, dtype=torch.float64)
    v = -m + math.sqrt(s2) * (eps - (x * eps).sum() * x)
    end = v.norm().cos() * x + v.norm().sin() * v / v.norm()
    torch.manual_seed(0)
    found = RedrawnTarget(None, sampler).at(J, x, t)
    assert found.item() == pytest.approx((energy(end) + tau * (m**2).sum() / (2 * s2)).item(), abs=1e-6)


@pytest.mark.parametrize("drift", ["value", "posterior"])
def test_clipping_counts_the_directions_along_the_sphere_alone(drift):
    """A gradient's part along x says nothing there; along the sphere clip*tau*sqrt(D - 1)/sigma_t is the limit."""
    sampler = SphereVGS(2, "linear", first=0.3, last=0.1, tau=0.5, drift=drift, clip=2.0).double()
    x = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64).expand(3, 5)
    direction = torch.tensor([0.6, 0.0, 0.8, 0.0, 0.0], dtype=torch.float64)
    for k, sigma in enumerate((0.4**0.5, 0.1**0.5)):
        limit = 2.0 * 0.5 * math.sqrt(5 - 1) / sigma
        lengths = limit * torch.tensor([0.5, 0.99, 7.0], dtype=torch.float64)
        slopes = lengths[:, None] * direction + 100 * x
        step = sampler(x, torch.full((3,), k), lambda y, t, slopes=slopes: (slopes * y).sum(1))
        drifts = (0.3, 0.1)[k] / 0.5 * lengths.clamp(max=limit)[:, None] * direction
        torch.testing.assert_close(x - step.mean, drifts, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_without_a_value_it_is_brownian_motion(dim):
    """E<x_0, x_t> = exp(-(D-1) t/2) at t = sum s^2, within 4 standard errors and t*s^2 for the finite steps."""
    sampler = SphereVGS(100, "constant", first=0.008)
    start = on_sphere(1, dim).float().expand(10_000, dim)
    (*_, end) = walk(sampler, flat, (10_000, dim), Generator().manual_seed(0), start=start)
    found = (start * end).sum(1)
    tolerance = 4 * found.std() / 100 + 0.8 * 0.008
    assert abs(found.mean() - math.exp(-(dim - 1) * 0.8 / 2)) < tolerance


def test_data_are_carried_away_by_that_walk():
    """x_0 given x_T is as far: E<x_0, x_T> = exp(-(D-1) t/2); the closed-form walk of vgs does not hold here."""
    sampler = SphereVGS(100, "linear", first=0.012, last=0.004)
    data = on_sphere(10_000, 3).float()
    x = sampler.perturb(data, Generator().manual_seed(0))
    found = (data * x).sum(1)
    assert (x.norm(dim=1) - 1).abs().max() < 1e-6
    assert abs(found.mean() - math.exp(-0.8)) < 4 * found.std() / 100 + 0.8 * 0.008


def test_the_start_is_uniform():
    x = SphereVGS().initial((20_000, 4), Generator().manual_seed(0))
    assert x.mean(0).abs().max() < 4 * 0.5 / math.sqrt(20_000)
    moment = x.T @ x / 20_000
    assert (moment - torch.eye(4) / 4).abs().max() < 4 * 0.25 / math.sqrt(20_000)


def test_it_learns_a_von_mises_fisher_density():
    """The mean resultant length is coth(kappa) - 1/kappa; 0.02 is for the finite steps and the noise of learning."""
    torch.manual_seed(0)
    kappa, steps = 3.0, 8
    target, sampler = VonMisesFisher(kappa), SphereVGS(steps, first=0.5, last=0.05)
    value = MLPEnergy(32, 2, time=True)
    value(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    learning = LearningConfig(lr=RatesConfig(value=1e-2), betas=(0.9, 0.999), decay="cosine")
    game = build_game(
        target, sampler, value, GameConfig(warmup=0, sweep=True), learning, Accelerator(cpu=True), total=60
    )
    for _ in range(60):
        game.round(None, (256, 3))
    x = rollout(sampler.eval(), Cost(target, value, steps), (20_000, 3), Generator().manual_seed(0))[-1]
    assert x.mean(0).tolist() == pytest.approx([0, 0, 1 / math.tanh(kappa) - 1 / kappa], abs=0.02)


def test_exploration_widens_the_noise_and_stays_on_the_sphere():
    J = Cost(VonMisesFisher(1.0), None, 1)
    start = on_sphere(1, 3).float().expand(10_000, 3)
    sampler, seeded = SphereVGS(1, "constant", first=0.01), Generator().manual_seed(0)
    ends = [rollout(sampler, J, (10_000, 3), seeded, start=start, explore=k)[-1] for k in (1, 3)]
    assert (ends[1].norm(dim=1) - 1).abs().max() < 1e-6
    near, far = (torch.linalg.cross(start, x).norm(dim=1).asin().square().mean() for x in ends)
    assert 8 < far / near < 10


@pytest.mark.parametrize("shape", [(1,), (1, 8, 8), ()])
def test_events_that_are_no_points_of_a_sphere_are_refused(shape):
    with pytest.raises(
        ConfigError, match=re.escape(f"sampler: the sphere needs events (D,) with D of 2 or more, not {shape}")
    ):
        SphereVGS().check(shape)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"first": -1.0}, "first: -1.0"),
        ({"last": 0.0}, "last: 0.0"),
        ({"tau": 0.0}, "tau: 0.0"),
    ],
)
def test_impossible_chains_are_refused(options, says):
    with pytest.raises(ConfigError, match=re.escape(f"{says} is not positive")):
        SphereVGS(**options)


def test_it_has_no_log_weights():
    with pytest.raises(ConfigError, match="SphereVGS has no noising chain, so it has no log-weights"):
        weigh(SphereVGS(2), Cost(VonMisesFisher(1.0), None, 2), 3)
