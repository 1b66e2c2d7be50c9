"""Distances between samples of a known density: closed forms, brute force, and the evaluator that reports them."""

import itertools
import math

import pytest
import torch
from dxmi_plugins.energies.known.mean_free import MeanFree
from dxmi_plugins.energies.known.particles import DW4, LennardJones
from dxmi_plugins.evaluators.densities.alignment import aligned_costs, nuclear, polar
from dxmi_plugins.evaluators.densities.distances import (
    mode_error,
    modes_found,
    side_error,
    sliced_w2,
    sorted_w2,
    squared_distances,
    w2,
)
from dxmi_plugins.evaluators.densities.evaluator import Densities
from torch import Generator

from dxmi.api import ConfigError, DensitySamples, Energy
from dxmi.config import build_plugin


def normal(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def moved(x, seed=0):
    """Particles (N,n,d), each configuration turned, reflected, shifted and in another order."""
    n, particles, d = x.shape
    turns = torch.linalg.qr(normal(n, d, d, seed=seed))[0]  # half of them reflections
    order = normal(n, particles, seed=seed).argsort(1)
    return (x @ turns).gather(1, order[:, :, None].expand_as(x)) + normal(n, 1, d, seed=seed)


def test_w2_of_a_shifted_set_is_the_shift():
    x, shift = normal(300, 3), torch.tensor([3.0, 0.0, -4.0], dtype=torch.float64)
    y = (x + shift)[torch.randperm(300, generator=Generator().manual_seed(1))]
    assert w2(squared_distances(x, y)) == pytest.approx(5, abs=1e-9)
    assert w2(squared_distances(x, x.flip(0))) == 0
    # Over K directions |d|^2/D comes with a relative error of sqrt(2 (D-1)/(D+2)/K): .04 here, .02 in the root.
    assert sliced_w2(x, y) == pytest.approx(5 / math.sqrt(3), rel=0.06)


def test_w2_of_normals_on_a_line():
    """W2^2 of N(0,1) and N(m,s^2) is m^2 + (s-1)^2, here between their quantiles."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    x = math.sqrt(2) * torch.erfinv(2 * u - 1)
    assert sorted_w2(x.flip(0), 1.5 + 0.25 * x) == pytest.approx(math.hypot(1.5, 0.75), abs=1e-4)
    few = x[::1000, None]
    assert w2(squared_distances(few, 2 * few)) == pytest.approx(sorted_w2(few, 2 * few), abs=1e-12)


def test_shares_of_modes_and_sides():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    near = lambda counts: modes.repeat_interleave(torch.tensor(counts), 0) + 0.5  # noqa: E731
    reference = near([4, 4, 2])
    assert mode_error(near([4, 4, 2]), reference, modes) == 0
    assert mode_error(near([9, 1, 0]), reference, modes) == pytest.approx(0.5)
    assert modes_found(near([9, 1, 0]), reference, modes) == 1  # the second has a quarter of its share
    assert modes_found(near([7, 2, 1]), reference, modes) == 3  # exactly half counts
    assert modes_found(near([5, 5, 0]), near([5, 5, 0]), modes) == 2  # a mode without samples is not found
    x, y = torch.tensor([[1.0, -1.0]] * 4), torch.tensor([[1.0, -1.0]] * 3 + [[1.0, 1.0]])
    assert side_error(x, y) == pytest.approx(0.25)


def test_nuclear_norms_and_polar_factors():
    m = torch.cat([normal(500, 3, 3), normal(500, 3, 3) * torch.tensor([1.0, 1e-3, 0.0])])  # the last ones singular
    u, s, vt = torch.linalg.svd(m)
    torch.testing.assert_close(nuclear(m), s.sum(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(polar(m[:500]), (u @ vt)[:500], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("energy", "n"), [(DW4(), 100), (LennardJones(), 12)])
def test_moved_copies_are_at_distance_zero(energy, n):
    x = energy.reference()[:n].double()
    aligned = w2(aligned_costs(x, moved(x)))
    assert aligned < 1e-4 < 0.5 < w2(squared_distances(x.flatten(1), moved(x).flatten(1)))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_few_particles_agree_with_brute_force(d):
    """All orders, and the orthogonal Procrustes problem by SVD."""
    x, y = normal(4, 3, d), normal(5, 3, d, seed=1)
    x, y = (part - part.mean(1, keepdim=True) for part in (x, y))
    expected = torch.full((4, 5), math.inf, dtype=torch.float64)
    for a, b, order in itertools.product(range(4), range(5), itertools.permutations(range(3))):
        z = y[b, list(order)]
        u, _, vt = torch.linalg.svd(z.T @ x[a])
        expected[a, b] = min(expected[a, b], (x[a] - z @ u @ vt).square().sum())
    torch.testing.assert_close(aligned_costs(x + 3, y - 2), expected, rtol=0, atol=1e-12)


def test_particles_on_a_line_are_paired_in_order():
    """There the best order is the sorted one, forwards or backwards; seven particles take the search."""
    x, y = normal(5, 7, 1), normal(6, 7, 1, seed=1)
    x, y = ((part - part.mean(1, keepdim=True)).sort(1)[0][:, :, 0] for part in (x, y))
    expected = torch.minimum(squared_distances(x, y), squared_distances(x, -y.flip(1)))
    torch.testing.assert_close(aligned_costs(x[:, :, None], y[:, :, None]), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("energy", [DW4(), LennardJones()])
def test_alignment_never_raises_a_cost(energy):
    x = energy.reference().double()[torch.arange(0, 2000, 100)]
    a, b = x[:10], x[10:]
    assert (aligned_costs(a, b) <= squared_distances(a.flatten(1), b.flatten(1)) + 1e-9).all()


@pytest.fixture(scope="module")
def gmm9():
    energy = build_plugin(Energy, {"name": "gaussian_mixture", "preset": "gmm9"})
    return DensitySamples(energy, energy.sample(1000, Generator().manual_seed(0)))


def test_the_evaluator_tells_good_samples_from_bad_ones(gmm9):
    """Reference against reference is the floor; collapsed to six of nine modes, all figures are far from it."""
    energy = gmm9.energy
    good = energy.sample(1000, Generator().manual_seed(1))
    bad = good[good[:, 0] > -2.5][:500].repeat(2, 1)
    floor, found = (Densities()(lambda n, x=x: x[:n], gmm9) for x in (good, bad))
    assert list(floor) == ["sliced_w2", "w2", "energy_w2", "side_error", "mode_error", "modes_found"]
    assert floor["modes_found"] == 9 and found["modes_found"] == 6
    assert found["mode_error"] == pytest.approx(1 / 3, abs=0.05)  # std of the missing share .015
    assert all(found[name] > 3 * floor[name] > 0 for name in ("sliced_w2", "w2", "mode_error", "side_error"))
    assert floor["w2"] < 1.5 and floor["sliced_w2"] < 0.6 and floor["energy_w2"] < 0.2
    assert Densities(["w2"])(lambda n: gmm9.samples[:n], gmm9) == {"w2": 0.0}


def test_particles_are_told_through_their_coordinates():
    """Samples turned at random score as before, and particles are told from mere coordinates."""
    energy = MeanFree(DW4())
    z = energy.reference()[torch.randperm(4000, generator=Generator().manual_seed(0))]
    reference = DensitySamples(energy, z[:300], exact=False)
    turned = energy.project(moved(energy.embed(z[300:600].double()))).float()
    evaluator = Densities(["w2", "energy_w2", "aligned_w2"])
    floor, found = (evaluator(lambda n, x=x: x[:n], reference) for x in (z[300:600], turned))
    assert found["aligned_w2"] == pytest.approx(floor["aligned_w2"], abs=1e-4)
    assert found["energy_w2"] == pytest.approx(floor["energy_w2"], abs=1e-4)
    assert found["w2"] != floor["w2"] > 4 * floor["aligned_w2"] > 0
    everything = Densities(samples=20)(lambda n: z[300 : 300 + n], reference)
    assert list(everything) == ["sliced_w2", "w2", "energy_w2", "aligned_w2"]  # which side a coordinate is on is chance


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metrics": ["fid"]}, "metrics: fid is not one of sliced_w2"),
        ({"metrics": []}, "metrics"),
        ({"samples": 1}, "samples: 1"),
        ({"aligned": 0}, "aligned: 0"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        Densities(**options)


def test_what_does_not_fit_is_refused(gmm9):
    draw = lambda n: gmm9.samples[:n]  # noqa: E731
    with pytest.raises(ConfigError, match="aligned_w2 needs particles.*GaussianMixture"):
        Densities(["aligned_w2"])(draw, gmm9)
    bowl = build_plugin(Energy, {"name": "banana"})
    with pytest.raises(ConfigError, match="mode_error needs modes"):
        Densities(["mode_error"])(draw, DensitySamples(bowl, bowl.sample(10)))
    with pytest.raises(ConfigError, match="fidelity"):
        Densities()(draw, torch.utils.data.TensorDataset(gmm9.samples))
    with pytest.raises(FloatingPointError, match="not finite"):
        Densities()(lambda n: gmm9.samples[:n] / 0, gmm9)
