"""What students and policies say of the noise of their states, at their nodes and between them (MATH 3.7, 3.9)."""

import copy
import math

import pytest
import torch
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.policy import GaussianPolicy
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from tiny import tiny

from dxmi.api import NoisedData, noise_level

KINDS = ["ddpm", "edm", "annealed", "sd3"]
OF_RATIO = {
    "ddpm": lambda s: (1 + s**2) ** -0.5,
    "edm": lambda s: (s**2 + 0.25) ** -0.5,
    "annealed": torch.ones_like,
    "sd3": lambda s: 1 / (1 + s),
}
"""alpha, where sigma/alpha is s"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folders of tiny pipelines by kind."""
    return {kind: str(tiny(kind, tmp_path_factory.mktemp(kind))) for kind in KINDS}


def sampler(source, kind, steps=4, **options):
    return DiffusionSampler(source[kind], AncestralScheduler(steps, **options))


def assert_noise(found, level, alpha, sigma, rtol=1e-4):
    alphas, sigmas = found.at_level(level.float())
    torch.testing.assert_close(alphas, alpha.float(), rtol=rtol, atol=1e-6)
    torch.testing.assert_close(sigmas, sigma.float(), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_of_the_nodes_fall_to_that_of_data(source, kind):
    found = sampler(source, kind)
    assert isinstance(found, NoisedData) and isinstance(copy.deepcopy(found), NoisedData)
    alpha, sigma = found.schedule.level(torch.arange(4))
    assert found.noise_levels.shape == (5,) and (found.noise_levels.diff() < 0).all()
    torch.testing.assert_close(found.noise_levels[:4], noise_level(alpha, sigma).float())
    assert_noise(found, found.noise_levels[:4], alpha, sigma)
    assert [float(part) for part in found.at_level(found.noise_levels[4])] == [1, 0]
    assert not any("noise" in key for key in found.state_dict())  # folders of before have no such thing


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_is_the_teachers_at_its_levels_and_between(source, kind):
    found = sampler(source, kind)
    _, alphas, sigmas, *_ = found.teacher.levels
    levels = noise_level(alphas, sigmas)
    assert_noise(found, levels, alphas, sigmas)
    share = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    between = levels[0] + share * (levels[-1] - levels[0])
    s = (between * math.pi / 2000).tan()
    alpha = OF_RATIO[kind](s)
    assert_noise(found, between, alpha, alpha * s, rtol=1e-2 if kind == "annealed" else 1e-4)  # which has 20 levels
    noisiest = torch.tensor([float(levels[-1]), 1000.0])
    assert all(part[0] == part[1] for part in found.at_level(noisiest))


@pytest.mark.parametrize("kind", ["edm", "annealed"])
def test_nodes_between_the_levels_are_near(source, kind):
    found = sampler(source, kind, nodes="karras")
    alpha, sigma = found.schedule.level(torch.arange(4))
    assert_noise(found, found.noise_levels[:4], alpha, sigma, rtol=5e-3 if kind == "annealed" else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gains_are_the_derivative_of_the_mean(source, kind):
    found = sampler(source, kind, clip_sample=False)
    x = torch.randn(4, 1, 1, 1, dtype=torch.float64)
    output = torch.randn_like(x).requires_grad_()
    mean, _ = found.schedule.transition(output, x, torch.arange(4))
    (slope,) = torch.autograd.grad(mean.sum(), output)
    torch.testing.assert_close(found.gains, slope.flatten().abs().float(), rtol=1e-4, atol=0)


def test_gains_of_epsilon_are_those_of_the_formula_whatever_is_clipped(source):
    found = sampler(source, "ddpm")
    _, a_t, s_t, a_s, s_s, std = found.schedule.rows.unbind(1)
    std = std * torch.tensor([1, 1, 1, 0])  # the last one is no part of the mean
    torch.testing.assert_close(found.gains, (a_s * s_t / a_t - (s_s**2 - std**2).sqrt()).float(), rtol=1e-5, atol=0)


def test_a_policys_states_are_data_with_noise():
    policy = GaussianPolicy([2], steps=5, first=4.0)
    assert isinstance(policy, NoisedData)
    levels = policy.noise_levels
    assert levels.shape == (6,) and (levels.diff() < 0).all() and levels[5] == 0
    for found, wanted in zip(policy.at_level(levels[:5]), policy.marginal(torch.arange(5)), strict=True):
        torch.testing.assert_close(found, wanted)
    assert torch.equal(policy.at_level(torch.tensor([1000.0]))[1], policy.at_level(levels[:1])[1])
    x, t = torch.randn(5, 2), torch.arange(5)
    before = policy(x, t, None).mean
    with torch.no_grad():
        policy.body[-1].bias += 1
    torch.testing.assert_close(policy(x, t, None).mean - before, policy.gains[:, None].expand(5, 2))
