"""Streaming moments and the Fréchet distance against closed forms, NumPy and torch-fidelity."""

import numpy as np
import pytest
import torch
from dxmi_plugins.evaluators.fidelity.frechet import (
    FrechetDistance,
    Gaussian,
    Moments,
    at_infinity,
    bootstrap,
    intercept,
    merged,
)
from torch import Generator
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric


def rows(n, d, seed=0, shift=0.0):
    return torch.randn(n, d, generator=Generator().manual_seed(seed), dtype=torch.float64) + shift


def moments_of(x):
    found = Moments(x.shape[1])
    found.update(x)
    return found


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def test_moments_equal_numpy_even_with_a_large_mean():
    x = rows(1000, 5, shift=1e4)
    found = Moments(5)
    for part in x.split(37):
        found.update(part)
    assert found.count == 1000
    assert relative(found.mean, x.mean(0)) < 1e-14
    assert relative(found.gaussian().covariance, torch.from_numpy(np.cov(x.numpy(), rowvar=False))) < 1e-11


def test_moments_in_shares_equal_one_pass():
    x = rows(999, 20, shift=3.0)
    whole = moments_of(x)
    shares = merged([moments_of(part) for part in (x[:10], x[10:11], x[:0], x[11:])])
    assert shares.count == 999
    assert relative(shares.mean, whole.mean) < 1e-12 and relative(shares.scatter, whole.scatter) < 1e-12


def test_moments_reduced_over_shares_equal_one_pass():
    """Three shares, the sums over them by hand, the last without rows; two processes are in test_samples.py."""
    x = rows(500, 8, shift=5.0)
    whole, shares = moments_of(x), [moments_of(x[::2]), moments_of(x[1::2]), Moments(8)]
    total = torch.tensor(500)
    mean = sum(s.mean * (s.count / 500) for s in shares)
    scatter = sum(s.scatter + s.count * (s.mean - mean).outer(s.mean - mean) for s in shares)
    for share in shares:
        sums = iter([total, mean, scatter])
        found = share.reduced(lambda own, sums=sums: next(sums))
        assert found.count == 500
        assert relative(found.mean, whole.mean) < 1e-12 and relative(found.scatter, whole.scatter) < 1e-12


def test_frechet_distance_of_diagonal_gaussians_is_known():
    """``sum (m - n)^2 + (s - r)^2`` of means and standard deviations."""
    m, n, s, r = (rows(1, 6, seed)[0] for seed in range(4))
    found = FrechetDistance(Gaussian(n, torch.diag(r**2)))(Gaussian(m, torch.diag(s**2)))
    assert found == pytest.approx(float((m - n).square().sum() + (s.abs() - r.abs()).square().sum()), rel=1e-12)


@pytest.mark.parametrize("n", [400, 20])  # of 30 dimensions: with full covariances and with singular ones
def test_frechet_distance_equals_torch_fidelity(n):
    a, b = rows(n, 30, 0) @ rows(30, 30, 1), rows(n, 30, 2, shift=0.3) @ rows(30, 30, 3)
    theirs = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    ours = FrechetDistance(moments_of(b).gaussian())(moments_of(a).gaussian())
    assert ours == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-6)


@pytest.mark.parametrize("n", [600, 20])
def test_frechet_distance_of_shares_equals_that_of_one_pass(n):
    a, b = rows(n, 30, 0), rows(n, 30, 2, shift=0.3)
    distance = FrechetDistance(moments_of(b).gaussian())
    shares = merged([moments_of(part) for part in a.split(7)])
    assert distance(shares.gaussian()) == pytest.approx(distance(moments_of(a).gaussian()), rel=1e-12)


def test_frechet_distance_of_few_samples_is_exact():
    """The trace of the root is the sum of singular values of the two sets' inner products, with no eigenvalue of 0."""
    n = 20
    a, b = (rows(n, 60, seed).relu() for seed in (0, 1))
    inner = (a - a.mean(0)) @ (b - b.mean(0)).T / (n - 1)
    A, B = moments_of(a).gaussian(), moments_of(b).gaussian()
    expected = (A.mean - B.mean).square().sum() + A.covariance.trace() + B.covariance.trace()
    expected -= 2 * torch.linalg.svdvals(inner).sum()
    assert FrechetDistance(B)(A) == pytest.approx(float(expected), rel=1e-12)


def test_at_infinity_the_line_in_one_over_n_ends():
    assert intercept([1 / n for n in (500, 1000, 2000, 4000)], [3 + 7 / n for n in (500, 1000, 2000, 4000)]) == (
        pytest.approx(3, rel=1e-12)
    )


def test_at_infinity_the_bias_is_gone():
    """Samples of the reference itself are 0 apart; over 4,000 of them the mean is 17 standard errors above it."""
    distance = FrechetDistance(Gaussian(torch.zeros(10).double(), torch.eye(10).double()))
    ends, plain = [], []
    for seed in range(20):
        parts = [moments_of(part) for part in rows(4000, 10, seed).split(500)]
        ends.append(at_infinity(parts, distance))
        plain.append(distance(merged(parts).gaussian()))
    error = np.std(ends, ddof=1) / 20**0.5
    assert abs(np.mean(ends)) < 3 * error
    assert np.mean(plain) > 10 * error


def test_the_bootstrap_interval_holds_distances_of_other_samples():
    """Twenty intervals at 95 % hold the mean distance 19 times, give or take 1, and are as wide as its spread says."""
    distance = FrechetDistance(Gaussian(torch.full((4,), 0.5).double(), torch.eye(4).double()))
    sets = [rows(300, 4, seed) for seed in range(200)]
    found = np.array([distance(moments_of(x).gaussian()) for x in sets])
    intervals = np.array([bootstrap(x, distance, 60, seed=0) for x in sets[:20]])
    held = (intervals[:, 0] <= found.mean()) & (found.mean() <= intervals[:, 1])
    assert held.sum() >= 17
    width = (intervals[:, 1] - intervals[:, 0]).mean()
    assert width == pytest.approx(2 * 1.96 * found.std(), rel=0.15)  # three standard errors of the spread of 200
