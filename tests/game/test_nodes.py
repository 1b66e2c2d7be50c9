"""What the energy is shown of states at a node, against the moments of Gaussian data (MATH 3.7)."""

import math

import pytest
import torch
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.policy import GaussianPolicy
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from noised_players import Shifts
from tiny import tiny

from dxmi.api import noise_level
from dxmi.game.contrast import PUREST, Nodes

MEAN, STD, N = 1.5, 0.5, 20_000
KINDS = ["preserving", "ddpm", "edm", "sd3", "exploding"]


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    """A sampler of three steps by the curve of its noise; ``preserving`` and ``exploding`` have no teacher."""

    def sampler(kind):
        if kind == "preserving":
            return Shifts()
        if kind == "exploding":
            return GaussianPolicy([1, 1, 1], 3, first=4.0, last=0.1)
        prompts = ["a digit"] if kind == "sd3" else None
        source = str(tiny(kind, tmp_path_factory.mktemp(kind)))
        return DiffusionSampler(source, AncestralScheduler(3, "midpoints"), prompts=prompts)

    return sampler


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def data(n=N):
    return MEAN + STD * torch.randn(n, 1, 1, 1)


def standard(sampler, x, level, extra=0.0):
    """States x (B,1,1,1) of data with the noise of these levels (B,), less their mean, over their std: N(0, 1)."""
    alpha, sigma = sampler.at_level(level)
    return (x.flatten() - alpha * MEAN) / (alpha**2 * (STD**2 + extra**2) + sigma**2).sqrt()


def assert_standard_normal(z):
    """The first four moments, within five of their standard errors."""
    for power, wanted, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert z.pow(power).mean().item() == pytest.approx(wanted, abs=5 * math.sqrt(variance / len(z))), power


@pytest.mark.parametrize("kind", KINDS)
def test_data_noised_to_a_node_have_its_moments(sampler, kind):
    found = sampler(kind)
    nodes = Nodes(found)
    assert nodes.last == 3
    for k in (1, 2, 3):
        x, level = nodes.seen(nodes.noised(data(), k), k)
        assert torch.equal(level, found.noise_levels[k].expand(N))
        assert_standard_normal(standard(found, x, level))
    x = data(5)
    assert torch.equal(nodes.noised(x, 3), x)  # the last node has no noise


@pytest.mark.parametrize("kind", KINDS)
def test_renoised_states_have_the_moments_of_the_level_that_is_told(sampler, kind):
    found = sampler(kind)
    nodes = Nodes(found, renoise=1.0)
    for k in (1, 3):
        own = found.noise_levels[k]
        x, level = nodes.seen(nodes.noised(data(), k), k)
        assert (level >= own).all() and (level <= PUREST).all()
        assert_standard_normal(standard(found, x, level))
        alpha, sigma = found.at_level(level)
        torch.testing.assert_close(noise_level(alpha, sigma), level, rtol=1e-4, atol=0.05)  # never told another one
        place = (level - own) / (nodes.highest - own)  # uniform
        assert place.mean().item() == pytest.approx(1 / 2, abs=5 * math.sqrt(1 / 12 / N))
        assert place.square().mean().item() == pytest.approx(1 / 3, abs=5 * math.sqrt(4 / 45 / N))


def test_levels_go_up_to_the_noisiest_that_the_sampler_knows(sampler):
    assert [Nodes(sampler(kind)).highest for kind in ("preserving", "ddpm", "edm", "sd3")] == [PUREST] * 4
    policy = sampler("exploding")
    assert (
        Nodes(policy).highest == pytest.approx(policy.noise_levels[0].item(), abs=0.01) and Nodes(policy).highest < 800
    )


@pytest.mark.parametrize("renoise", [0.0, 0.25, 1.0])
def test_a_share_is_renoised_and_the_rest_is_shown_as_it_is(sampler, renoise):
    found = sampler("preserving")
    x = data()
    shown, level = Nodes(found, renoise=renoise).seen(x, 2)
    higher = level > found.noise_levels[2]
    assert torch.equal(shown[~higher], x[~higher]) and (level[~higher] == found.noise_levels[2]).all()
    assert not (shown[higher] == x[higher]).any()
    assert higher.float().mean().item() == pytest.approx(renoise, abs=5 * math.sqrt(renoise * (1 - renoise) / N))


@pytest.mark.parametrize("renoise", [0.0, 1.0])
def test_the_input_noise_is_on_the_states_of_the_last_node_alone(sampler, renoise):
    """They are told as clean all the same; carried to a higher level they carry it along."""
    found, noise = sampler("preserving"), 0.6
    nodes = Nodes(found, noise, renoise)
    for k, extra in ((2, 0.0), (3, noise)):
        x, level = nodes.seen(nodes.noised(data(), k), k)
        assert_standard_normal(standard(found, x, level, extra))
    shown, level = Nodes(found, noise).seen(data(), 3)
    assert (level == 0).all()
    x = data()
    assert torch.equal(Nodes(found, noise).seen(x, 2)[0], x)


def test_states_noisier_than_all_that_is_renoised_to_stay_as_they_are():
    """A first node above PUREST has no higher level: it is not carried down to one."""
    found = Shifts(levels=(999.0, 996.0, 500.0))
    x = data(100)
    shown, level = Nodes(found, renoise=1.0).seen(x, 1)
    assert (level == 996).all()
    torch.testing.assert_close(shown, x, rtol=0, atol=1e-3)


def test_one_state_is_carried_by_the_ratio_of_the_signals(sampler):
    """``r*x + sqrt(sigma_t^2 - r^2*sigma^2)*eps``: its mean and its std for a state that is known."""
    found = sampler("preserving")
    nodes, level = Nodes(found), torch.full((N,), 300.0)
    (alpha, sigma), (alpha_t, sigma_t) = (found.at_level(torch.tensor(each)) for each in (300.0, 650.0))
    x = nodes.carried(torch.full((N, 1), 2.0), level, torch.full((N,), 650.0))
    std = (sigma_t**2 - (alpha_t / alpha * sigma) ** 2).sqrt().item()
    assert x.mean().item() == pytest.approx(2 * (alpha_t / alpha).item(), abs=5 * std / math.sqrt(N))
    assert x.std().item() == pytest.approx(std, abs=5 * std / math.sqrt(2 * N))


def test_weights_are_the_inverse_gains_with_mean_one(sampler):
    nodes = Nodes(sampler("preserving"))
    torch.testing.assert_close(nodes.weights("gain"), torch.tensor([0.25, 0.5, 2.0]) / 2.75 * 3)
    assert nodes.weights("equal").tolist() == [1, 1, 1]
