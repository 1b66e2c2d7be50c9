"""The value of pair distances: symmetries, coinciding particles, shapes, and use beside the target."""

import re

import pytest
import torch
from dxmi_plugins.energies.informed import InformedValue
from dxmi_plugins.energies.known.mean_free import MeanFree
from dxmi_plugins.energies.known.particles import DW4, LennardJones
from dxmi_plugins.energies.pair_distances import PairDistances
from torch import Generator

from dxmi.api import ConfigError

LAYOUTS = pytest.mark.parametrize("inverse", [False, True], ids=["distances", "inverse"])
T = torch.arange(20) % 3


def learned(*sizes, **options):
    """A value as after some learning, since a fresh one is 0."""
    torch.manual_seed(0)
    value = PairDistances(*sizes, **options).double()
    for p in value.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return value


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def moved(x):
    """Particles (B,n,d) turned, reflected, shifted and in another order; the turn and the order too."""
    n, d = x.shape[1:]
    turn, _ = torch.linalg.qr(noise(d, d, seed=1))
    turn[:, 0] *= -torch.linalg.det(turn)  # a reflection too
    order = torch.randperm(n, generator=Generator().manual_seed(2))
    return (x @ turn + noise(len(x), 1, d, seed=3))[:, order], turn, order


@LAYOUTS
@pytest.mark.parametrize(("particles", "dimensions"), [(4, 2), (13, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_values_do_not_feel_the_symmetries_and_drifts_follow_them(particles, dimensions, inverse, dtype, tolerance):
    value = learned(particles, dimensions, mean_free=False, inverse=inverse).to(dtype)
    x = noise(20, particles, dimensions)
    other, turn, order = moved(x)
    v, g = value.with_gradient(x.to(dtype), T)
    found_v, found_g = value.with_gradient(other.to(dtype), T)
    torch.testing.assert_close(found_v, v, rtol=0, atol=tolerance)
    torch.testing.assert_close(found_g, (g @ turn.to(dtype))[:, order], rtol=0, atol=tolerance)
    assert g.abs().max() > 100 * tolerance


@LAYOUTS
def test_mean_free_coordinates_are_the_particles_less_their_centre(inverse):
    target = MeanFree(LennardJones(5))
    value = learned(5, 3, inverse=inverse)
    whole = learned(5, 3, mean_free=False, inverse=inverse)
    whole.load_state_dict(value.state_dict())
    z = noise(20, 4, 3)
    v, g = value.with_gradient(z, T)
    found_v, found_g = whole.with_gradient(target.embed(z) + 7, T)
    torch.testing.assert_close(found_v, v, rtol=0, atol=1e-10)
    torch.testing.assert_close(target.project(found_g), g, rtol=0, atol=1e-10)
    assert found_g.sum(1).abs().max() < 1e-12  # no drift of the centre of mass


def test_the_features_of_a_square():
    """Two diagonals before four sides, and the other way round they do not grow."""
    square = torch.tensor([[[0.0, 0], [4, 0], [4, 4], [0, 4]]], dtype=torch.float64)
    wanted = torch.tensor([[33.0, 33, 17, 17, 17, 17]], dtype=torch.float64).sqrt()
    torch.testing.assert_close(PairDistances(4, 2, mean_free=False).features(square), wanted)
    torch.testing.assert_close(PairDistances(4, 2, mean_free=False, inverse=True).features(square), 1 / wanted)


@LAYOUTS
def test_particles_at_one_point_have_a_finite_gradient(inverse):
    value = learned(4, 2, mean_free=False, inverse=inverse)
    x = noise(3, 4, 2)
    x[1:, 1] = x[1:, 0]  # two of them
    x[2] = 0  # all of them
    v, g = value.with_gradient(x, T[:3])
    assert v.isfinite().all() and g.isfinite().all() and g[1].any()
    assert not g[2].any()


def test_the_memory_layout_does_not_matter():
    value = learned(4, 2)
    rows = noise(20, 3, 2)
    chains = rows.movedim(0, -1).contiguous().movedim(-1, 0)
    for a, b in zip(value.with_gradient(rows, T), value.with_gradient(chains, T), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_it_depends_on_time_and_needs_one():
    value, x = learned(4, 2), noise(1, 3, 2).expand(3, 3, 2)
    v = value(x, torch.arange(3))
    assert v.unique().numel() == 3
    with pytest.raises(ConfigError, match="needs a time t"):
        value(x)


@pytest.mark.parametrize("shape", [(5,), (4, 2), (3, 3), (1, 8, 8)])
def test_other_events_are_refused(shape):
    says = f"event shape {shape} are not particles as particles, dimensions, mean_free say: (3, 2)"
    with pytest.raises(ConfigError, match=re.escape(says)):
        PairDistances(4, 2)(torch.zeros(1, *shape), T[:1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"particles": 1}, "particles: 1 is less than 2"),
        ({"dimensions": 0}, "dimensions: 0 is not positive"),
        ({"width": 0}, "width: 0 is not positive"),
    ],
)
def test_impossible_sizes_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        PairDistances(**{"particles": 4, "dimensions": 2, **options})


def test_beside_the_target_it_changes_nothing_until_it_learns():
    target = MeanFree(DW4())
    residual = PairDistances(4, 2)
    plain, value = (InformedValue(target, 3, start=2.0, residual=f) for f in (None, residual))
    x = 2 * noise(20, 3, 2).float()
    torch.testing.assert_close(value(x, T), plain(x, T))
    torch.nn.init.normal_(residual.mlp.body[-1].weight)
    assert (value(x, T) - plain(x, T)).abs().min() > 1e-3
