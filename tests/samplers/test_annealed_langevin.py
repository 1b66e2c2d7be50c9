"""Annealed Langevin: the closed form on a Gaussian, Song's mixture (TOOLBOX row 23), and what it refuses."""

import math

import pytest
import torch
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.mcmc.annealed_langevin import AnnealedLangevin
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from torch import Generator

from dxmi.api import ConfigError, Noised
from dxmi.chains import known_cost, rollout, run_chains

LADDER = {"sigmas": [2.0, 0.9, 0.3], "inner": 4, "step_size": 0.03}
CENTRE, VARIANCE = 3.0, 0.25


def gaussian():
    return GaussianMixture(means=[[CENTRE, CENTRE]], covariances=VARIANCE)


def song():
    """Two modes of variance 1; the minor one at (-5, -5) weighs .2."""
    return GaussianMixture(weights=[0.2, 0.8], means=[[-5.0, -5.0], [5.0, 5.0]], covariances=1.0)


def factors(sampler):
    """(a, s) of each step ``x' = centre + a*(x - centre) + s*eps`` on the Gaussian."""
    for sigma in sampler.stds[:-1]:
        h = sampler.step_size * (sigma / 0.3) ** 2
        yield 1 - h / (VARIANCE + sigma**2), math.sqrt(2 * h)
    yield VARIANCE / (VARIANCE + 0.3**2), 0.0


def test_chains_with_the_same_noise_approach_each_other_as_the_closed_form_says():
    sampler = AnnealedLangevin(**LADDER)
    cost, starts = known_cost(gaussian(), sampler), torch.randn(2, 5, 2, dtype=torch.float64)
    a, b = (rollout(sampler, cost, (5, 2), Generator().manual_seed(0), start=start) for start in starts)
    kept = torch.tensor([1.0, *(f for f, _ in factors(sampler))], dtype=torch.float64).cumprod(0)
    torch.testing.assert_close(a - b, kept[:, None, None] * (a[0] - b[0]), rtol=0, atol=1e-12)


def test_mean_and_variance_follow_their_recursion():
    n, sampler = 50_000, AnnealedLangevin(**LADDER)
    mean, variance = -CENTRE, 2.0**2  # of x - centre at the start, whose std is the first level's
    for a, s in factors(sampler):
        mean, variance = a * mean, a**2 * variance + s**2
    away = run_chains(gaussian(), sampler, n).samples - CENTRE
    assert away.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / (2 * n)))
    assert away.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / (2 * n)))


def minor_mode(samples):
    """The share of the minor mode, and the variance (2,) inside the modes."""
    minor = samples.sum(1) < 0
    inside = torch.where(minor[:, None], samples + 5, samples - 5)
    return minor.float().mean().item(), inside.var(0)


def test_modes_get_their_weights_where_plain_langevin_gives_each_a_half():
    plain, _ = minor_mode(run_chains(song(), Langevin(steps=1000, step_size=0.05, start=4.6), 4000).samples)
    sampler = AnnealedLangevin(sigma_max=20.0, sigma_min=0.2, levels=20, inner=100, step_size=0.008)
    annealed, variance = minor_mode(run_chains(song(), sampler, 8000).samples)
    assert plain == pytest.approx(0.49, abs=0.05)
    assert annealed == pytest.approx(0.2, abs=0.02)
    assert (variance - 1).abs().max() < 0.1


def test_steps_and_levels():
    sampler = AnnealedLangevin(sigma_max=8.0, sigma_min=1.0, levels=4, inner=2)
    assert sampler.sigmas.tolist() == pytest.approx([8, 8, 4, 4, 2, 2, 1, 1, 1])
    assert sampler.steps == 9 and not sampler.stationary and sampler.start == 8
    assert AnnealedLangevin(levels=4, inner=2, denoise=False).steps == 8
    noised = Noised(song(), sampler.sigmas)
    assert len(noised.levels) == 4  # steps share a level
    x = torch.randn(3, 2)
    for k, sigma in enumerate(sampler.sigmas.tolist()):
        assert noised(x, torch.full((3,), k)).equal(song().convolved(sigma**2)(x))


def test_the_last_step_is_tweedie():
    sampler = AnnealedLangevin(**LADDER)
    cost, x = known_cost(gaussian(), sampler), torch.randn(5, 2, dtype=torch.float64)
    found = sampler.step(x, torch.full((5,), sampler.steps - 1), cost)
    posterior_mean = (0.3**2 * CENTRE + VARIANCE * x) / (0.3**2 + VARIANCE)
    torch.testing.assert_close(found, posterior_mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sigmas": [1.0, 2.0]}, "sigmas: 1.0 is followed by 2.0"),
        ({"sigmas": [1.0, -1.0]}, "sigmas: -1.0 is followed by 0.0"),
        ({"sigmas": [float("inf"), 1.0]}, "sigmas: inf is followed by inf"),
        ({"sigmas": []}, "sigmas: the list is empty"),
        ({"sigmas": [1.0]}, "step_size: null needs two levels"),
        ({"sigma_max": 0.1}, "sigma_max: 0.1 is not above sigma_min, 0.1"),
        ({"sigma_min": 0.0}, "sigma_min: 0.0 is not positive"),
        ({"levels": 0}, "levels: 0 cannot go from 10.0 to 0.1"),
        ({"inner": 0}, "inner: 0 steps a level"),
        ({"step_size": 0.0}, "step_size: 0.0 is not positive"),
        ({"start": -1.0}, "start: -1.0 is negative"),
    ],
)
def test_wrong_options(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        AnnealedLangevin(**options)


def test_a_density_that_does_not_know_itself_with_noise_is_refused():
    with pytest.raises(
        ConfigError, match="value: Banana has no closed form with noise added, so this sampler needs a value"
    ):
        run_chains(Banana(), AnnealedLangevin(), 5)
