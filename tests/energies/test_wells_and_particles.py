"""Wells, particles, the pairwise field and mean-free coordinates: closed forms, symmetries, reference energies."""

import json
import math
from pathlib import Path

import dxmi_plugins.energies.known as known
import pytest
import torch
from dxmi_plugins.energies.known.mean_free import MeanFree
from dxmi_plugins.energies.known.pairwise_mrf import PairwiseMRF
from dxmi_plugins.energies.known.particles import DW4, LennardJones
from dxmi_plugins.energies.known.wells import DoubleWell, ManyWell
from dxmi_plugins.energies.quadrature import expectation, log_z
from dxmi_plugins.samplers.mcmc.mala import MALA
from torch import Generator

from dxmi.api import ConfigError, Energy, ExactDraws, StoredDraws
from dxmi.chains import run_chains

THETA = [[0.0, 1.0, 0.5], [1.0, 0.0, -2.0], [0.5, -2.0, 0.0]]
ENERGIES = {
    "double_well": lambda: DoubleWell(dim=4, separation=1.5),
    "many_well": lambda: ManyWell(dim=6),
    "mrf": lambda: PairwiseMRF(THETA),
    "dw4": DW4,
    "lj5": lambda: LennardJones(5),
    "mean_free_dw4": lambda: MeanFree(DW4()),
    "mean_free_mrf": lambda: MeanFree(PairwiseMRF(THETA)),
}
every = pytest.mark.parametrize("build", ENERGIES.values(), ids=ENERGIES)
PARTICLES = {"dw4": DW4, "lj2": lambda: LennardJones(2), "lj13": LennardJones}
each = pytest.mark.parametrize("build", PARTICLES.values(), ids=PARTICLES)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every
def test_the_gradient_is_that_of_autograd_whatever_the_memory_layout(build):
    energy = build()
    rows = 2 * noise(50, *energy.event_shape)
    chains = rows.movedim(0, -1).contiguous().movedim(-1, 0)
    for x in (rows, chains):
        e, g = energy.with_gradient(x)
        wanted_e, wanted_g = Energy.with_gradient(energy, x)
        close(e, wanted_e, 1e-12)
        close(g, wanted_g, 1e-12)
        assert not g.requires_grad and x.shape == g.shape and not x.requires_grad
    close(energy(rows), energy(chains), 1e-12)


@every
def test_float32_in_float32_out(build):
    energy = build()
    x = noise(5, *energy.event_shape).float()
    assert {part.dtype for part in (energy(x), *energy.with_gradient(x))} == {torch.float32}
    torch.testing.assert_close(energy(x), energy(x.double()).float(), rtol=1e-4, atol=1e-3)


def test_double_well_is_zero_at_its_wells_only():
    energy = DoubleWell(dim=2, separation=3.0)
    assert energy(torch.tensor([[3.0, -3.0], [0.0, 3.0], [0.0, 0.0]])).tolist() == [0, 81, 162]


def test_many_well_interleaves_wells_and_normals():
    energy = ManyWell(dim=4)
    x = torch.tensor([[1.0, 3.0, -2.0, 4.0]], dtype=torch.float64)
    assert energy(x).item() == pytest.approx((1 - 6 - 0.5 + 4.5) + (16 - 24 + 1 + 8), abs=1e-12)


def test_many_well_has_the_published_log_z():
    assert ManyWell(dim=32).log_z == pytest.approx(164.6957, abs=1e-4)


@pytest.mark.parametrize(
    ("well", "one", "low", "high"),
    [
        (ManyWell(2).well, ManyWell(2), [-4.0, -10], [4.0, 10]),
        (DoubleWell(1).size, DoubleWell(1), [0.0], [4.0]),
        (DoubleWell(1, separation=40.0).size, DoubleWell(1, separation=40.0), [39.8], [40.2]),
    ],
    ids=["many_well", "double_well", "far_wells"],
)
def test_the_inverse_cdf_is_off_by_less_than_a_millionth(well, one, low, high):
    u = torch.tensor([1e-4, 0.01, 0.157, 0.3, 0.5, 0.8, 0.999], dtype=torch.float64)
    total = log_z(one, low, high, 401)
    for share, x in zip(u.tolist(), well(u).tolist(), strict=True):
        part = (log_z(one, low, [x, *high[1:]], 401) - total).exp()
        assert part.item() == pytest.approx(share, abs=1e-6)


def test_samples_of_many_well():
    x = ManyWell(dim=8).sample(5000, Generator().manual_seed(0))
    assert x.shape == (5000, 8) and x.dtype == torch.float32
    assert ManyWell(dim=2).double().sample(1).dtype == torch.float64
    heavy, v = (x[:, ::2] > 0).double().flatten(), x[:, 1::2].double().flatten()
    assert abs(heavy.mean() - 0.8443) < 4 * math.sqrt(0.8443 * 0.1557 / len(heavy))
    assert abs(v.mean()) < 4 / math.sqrt(len(v)) and abs(v.var() - 1) < 4 * math.sqrt(2 / len(v))


@pytest.mark.parametrize("separation", [0.8, 2.0, 20.0])
def test_samples_of_double_well(separation):
    x = DoubleWell(dim=3, separation=separation).sample(5000, Generator().manual_seed(1)).double().reshape(-1, 1)
    ends = -separation - 3, separation + 3
    for f in (lambda x: x, torch.abs, torch.square, lambda x: x**4):
        exact = expectation(f, DoubleWell(dim=1, separation=separation), *ends, points=20_001)
        assert abs(f(x).mean() - exact) < 4 * f(x).std() / math.sqrt(len(x))


@pytest.mark.parametrize("energy", [DoubleWell(), ManyWell()], ids=["double_well", "many_well"])
def test_samples_come_from_the_generator_alone(energy):
    state = torch.get_rng_state()
    first, again, other = (energy.sample(3, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@each
def test_particles_do_not_feel_rotation_reflection_translation_and_order(build):
    energy = build()
    n, d = energy.event_shape
    x = 1.5 * noise(20, n, d)
    turn, _ = torch.linalg.qr(noise(d, d, seed=1))
    turn[:, 0] *= -torch.linalg.det(turn)  # a reflection too
    order = torch.randperm(n, generator=Generator().manual_seed(2))
    e, g = energy.with_gradient(x)
    size = g.abs().max().item()
    for moved, gradient in (
        (x @ turn, g @ turn),
        (x + noise(20, 1, d, seed=3), g),
        (x[:, order], g[:, order]),
    ):
        found, found_g = energy.with_gradient(moved)
        close(found, e, 1e-10)
        torch.testing.assert_close(found_g, gradient, rtol=1e-10, atol=1e-10 * size)


def test_dw4_of_a_square():
    """Four sides of 4, where the pair energy is 0, and two diagonals of 4*sqrt(2)."""
    square = torch.tensor([[[0.0, 0], [4, 0], [4, 4], [0, 4]]], dtype=torch.float64)
    s = (4 * math.sqrt(2) - 4) ** 2
    assert DW4()(square).item() == pytest.approx(2 * (0.9 * s**2 - 4 * s), abs=1e-5)  # softened distances


def test_lennard_jones_of_a_pair_and_of_the_icosahedron():
    """The pair takes every pair twice; the icosahedron's -44.326801 is in the Cambridge Cluster Database."""
    pair = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]], dtype=torch.float64)
    assert LennardJones(2)(pair).item() == pytest.approx(2 * (1 - 2) + 2 * 0.5**2 / 2, abs=1e-5)
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    ball = torch.tensor([(0.0, 0, 0)] + [c[k:] + c[:k] for c in corners for k in range(3)], dtype=torch.float64)
    scales = torch.linspace(0.48, 0.54, 2001, dtype=torch.float64)
    x = scales[:, None, None] * ball
    clusters = LennardJones(13)(x) - x.square().sum((1, 2)) / 2
    assert clusters.min().item() == pytest.approx(2 * -44.326801, abs=1e-3)


@each
def test_energies_are_never_nan(build):
    energy = build()
    x = torch.zeros(6, *energy.event_shape)
    for row, size in enumerate((1e-20, 1e-4, 1e-2, 1e10, 1e20), 1):  # row 0: all at one point
        x[row] = size * noise(*energy.event_shape)
    e, g = energy.with_gradient(x)
    assert not e.isnan().any() and not energy(x).isnan().any()
    assert (g[0] == 0).all() and not g[:5].isnan().any()  # beyond, the forces overflow


def dw4_log_z(beta, h=0.3, reach=6.6):
    """Log Z of mean-free DW4, exact: particle 1 at the origin, 2 on an axis, 3 and 4 on a grid of spacing h.

    Given 1 and 2, particles 3 and 4 meet in one matrix. The change to mean-free coordinates divides Z by n^(d/2) = 4.
    """

    def boltzmann(d):
        s = (d - 4).square()
        return (-beta * s * (0.9 * s - 4)).exp()

    axis = torch.arange(-reach, reach, h, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    r = torch.arange(h / 2, reach, h, dtype=torch.float64)
    near = boltzmann(x.norm(dim=1))[:, None] * boltzmann(torch.cdist(x, torch.stack([r, 0 * r], 1)))
    rest = (near * (boltzmann(torch.cdist(x, x)) @ near)).sum(0) * h**4
    return (2 * math.pi * r * boltzmann(r) * rest).sum().mul(h / 4).log().item()


def test_chains_on_dw4_reach_the_exact_mean_energy():
    """MATH 5: -22.5 +- 1.9. The quadrature, by derivatives in the inverse temperature, gives -22.541 and 1.905."""
    h = 0.02
    below, here, above = (dw4_log_z(1 + k * h) for k in (-1, 0, 1))
    mean, std = (below - above) / (2 * h), math.sqrt(above + below - 2 * here) / h
    assert MeanFree(DW4()).log_z == pytest.approx(dw4_log_z(1.0, h=0.2), abs=1e-5)
    assert here == pytest.approx(DW4.log_z_mean_free, abs=1e-3)
    assert mean == pytest.approx(-22.541, abs=2e-3) and std == pytest.approx(1.905, abs=2e-3)
    chain = MALA(steps=1500, step_size=0.02, drift_clip=30.0, start=2.0)
    found = run_chains(MeanFree(DW4()), chain, 400, draws=1).energies.double()
    assert abs(found.mean() - mean) < 4 * std / math.sqrt(len(found))


@pytest.mark.parametrize("inner", [DW4(), LennardJones(5), PairwiseMRF(THETA)], ids=["dw4", "lj5", "mrf"])
def test_mean_free_is_the_energy_on_centred_configurations(inner):
    energy = MeanFree(inner)
    n, *rest = inner.event_shape
    assert energy.event_shape == (n - 1, *rest)
    z = 1.5 * noise(20, n - 1, *rest)
    x = energy.embed(z)
    assert x.shape == (20, n, *rest) and x.mean(1).abs().max() < 1e-12
    close(energy(z), inner(x), 1e-12)
    close(energy.project(x), z, 1e-12)
    close(energy.embed(energy.project(x + 7)), x, 1e-12)  # 7 moves the centre of mass alone
    close(x.square().flatten(1).sum(1), z.square().flatten(1).sum(1), 1e-12)


def test_normal_noise_in_mean_free_coordinates_is_projected_noise():
    """``H^T H = I`` and ``H H^T = I - 11^T/n``, the covariance of normal noise less its mean."""
    basis = MeanFree(LennardJones(7)).basis
    close(basis.T @ basis, torch.eye(6, dtype=torch.float64), 1e-12)
    close(basis @ basis.T, torch.eye(7, dtype=torch.float64) - 1 / 7, 1e-12)


def test_the_field_of_three_numbers():
    energy = PairwiseMRF(THETA)
    x = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64)
    e, g = energy.with_gradient(x)
    assert e.item() == 1.0 * 1 + 0.5 * 3 - 2.0 * 2 and g.tolist() == [[-1.5, 3.0, -1.5]]
    assert energy(x + 0.25).item() == e.item() and energy.log_z is None


@pytest.mark.parametrize(
    ("energy", "shape", "mean", "std", "tolerance"),
    [(DW4(), (4000, 4, 2), -22.54, 1.905, 0.12), (LennardJones(), (2000, 13, 3), -43.1, 7.0, 0.7)],
    ids=["dw4", "lj13"],
)
def test_the_references_have_the_published_energies(energy, shape, mean, std, tolerance):
    """The tolerances are 4 standard errors, and for Lennard-Jones the rounding of the published numbers."""
    x = energy.reference()
    assert x.shape == shape and x.dtype == torch.float32
    assert x.mean(1).abs().max() < 1e-5
    found = energy(x).double()
    assert abs(found.mean() - mean) < tolerance and abs(found.std() - std) < tolerance
    told = json.loads((Path(known.__file__).parent / "references" / f"{energy.reference.args[0]}.json").read_text())
    assert told["energy"]["mean"] == pytest.approx(found.mean().item(), abs=1e-3)
    assert told["largest_z_between_starts"] < 4 and told["r_hat_max"] < 1.05


def test_other_sizes_have_no_reference_and_particles_no_exact_draws():
    assert not isinstance(LennardJones(55), StoredDraws) and not isinstance(MeanFree(LennardJones(55)), StoredDraws)
    for energy in (DW4(), MeanFree(DW4())):
        assert isinstance(energy, StoredDraws) and not isinstance(energy, ExactDraws)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: DoubleWell(dim=0), "dim: 0 is not positive"),
        (lambda: DoubleWell(separation=-1.0), "separation: -1.0 is not positive"),
        (lambda: DoubleWell(separation=math.inf), "separation: inf is not positive"),
        (lambda: ManyWell(dim=5), "dim: 5 is not a positive even"),
        (lambda: ManyWell(dim=0), "dim: 0 is not a positive even"),
        (lambda: LennardJones(1), "particles: 1 is less than 2"),
        (lambda: PairwiseMRF([[0.0, 1.0], [1.0]]), r"theta: rows of \[2, 1\] numbers"),
        (lambda: PairwiseMRF([[0.0]]), r"theta: rows of \[1\] numbers"),
        (lambda: PairwiseMRF([]), r"theta: rows of \[\] numbers"),
        (lambda: PairwiseMRF([[0.0, 1.0], [2.0, 0.0]]), r"theta: entries \[0\]\[1\] and \[1\]\[0\] differ"),
        (lambda: PairwiseMRF([[0.0, math.nan], [math.nan, 0.0]]), "theta: it holds a value that is not finite"),
        (lambda: MeanFree(DoubleWell(dim=1)), r"energy: events of shape \(1,\) are not particles"),
    ],
)
def test_wrong_options_are_named(build, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build()
