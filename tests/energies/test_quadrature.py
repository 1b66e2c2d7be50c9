"""Simpson's rule on densities: closed forms, and the gradient of log Z as an expectation."""

import math

import pytest
import torch
from dxmi_plugins.energies.known.mean_free import MeanFree
from dxmi_plugins.energies.known.pairwise_mrf import PairwiseMRF
from dxmi_plugins.energies.known.wells import DoubleWell, ManyWell
from dxmi_plugins.energies.quadrature import expectation, log_z
from torch import nn

from dxmi.api import ConfigError, Energy


class Normal(Energy):
    """``x^T precision x / 2``."""

    def __init__(self, precision):
        super().__init__()
        self.precision = torch.tensor(precision, dtype=torch.float64)
        self.event_shape = (len(precision),)

    def forward(self, x, t=None, cond=None):
        return ((x @ self.precision) * x).sum(1) / 2


class Quartic(Energy):
    """``theta*x^4 + x^2/2``, an energy with a parameter."""

    event_shape = (1,)

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, x, t=None, cond=None):
        return (self.theta * x**4 + x**2 / 2).sum(1)


class Exponential(Energy):
    event_shape = (1, 1)

    def forward(self, x, t=None, cond=None):
        return x.sum((1, 2))


def test_normal_laws_in_one_and_two_dimensions():
    assert log_z(Normal([[4.0]]), -6, 6).item() == pytest.approx(math.log(2 * math.pi / 4) / 2, abs=1e-12)
    precision = [[2.0, 0.6], [0.6, 1.0]]  # determinant 1.64
    energy = Normal(precision)
    assert log_z(energy, [-8, -11], [8, 11], 301).item() == pytest.approx(
        math.log(2 * math.pi) - math.log(1.64) / 2, abs=1e-12
    )
    covariance = expectation(lambda x: x[:, :, None] * x[:, None, :], energy, [-8, -11], [8, 11], 301)
    torch.testing.assert_close(covariance, torch.tensor(precision).double().inverse(), rtol=0, atol=1e-7)


def test_a_density_cut_off_by_the_box():
    z, mean = 1 - 1 / math.e, (1 - 2 / math.e) / (1 - 1 / math.e)
    assert log_z(Exponential(), 0, 1).item() == pytest.approx(math.log(z), abs=1e-12)
    assert expectation(lambda x: x, Exponential(), 0, 1).item() == pytest.approx(mean, abs=1e-12)


def test_the_gradient_of_log_z_is_minus_the_mean_gradient_of_the_energy():
    """TOOLBOX row 2."""
    box, theta, h = (-6, 6), 0.3, 1e-4
    energy = Quartic(theta)
    mean = -expectation(lambda x: x[:, 0] ** 4, energy, *box)
    difference = (log_z(Quartic(theta + h), *box) - log_z(Quartic(theta - h), *box)) / (2 * h)
    assert difference.item() == pytest.approx(mean.item(), abs=1e-7)
    (gradient,) = torch.autograd.grad(log_z(energy, *box), energy.theta)
    assert gradient.item() == pytest.approx(mean.item(), abs=1e-12)


@pytest.mark.parametrize("separation", [0.3, 1.0, 2.0, 2.9, 7.0, 30.0])
def test_double_wells_know_their_log_z(separation):
    energy = DoubleWell(dim=1, separation=separation)
    assert log_z(energy, -separation - 3, separation + 3, 40_001).item() == pytest.approx(energy.log_z, abs=1e-10)


def test_many_well_knows_its_log_z():
    energy = ManyWell(dim=2)
    assert log_z(energy, [-4, -10], [4, 10], 401).item() == pytest.approx(energy.log_z, abs=1e-10)
    assert energy.log_z == pytest.approx(math.log(11784.50927) + math.log(2 * math.pi) / 2, abs=1e-9)
    heavy = expectation(lambda x: (x[:, 0] > 0) + (x[:, 0] == 0) / 2, energy, [-4, -10], [4, 10], 401)
    assert heavy.item() == pytest.approx(0.8443, abs=5e-5)


def test_two_attracting_numbers():
    """On the line x = (r, -r)/sqrt(2) the field's energy is theta*sqrt(2)*|r|, so Z = sqrt(2)/theta."""
    energy = MeanFree(PairwiseMRF([[0.0, 3.0], [3.0, 0.0]]))
    assert log_z(energy, -10, 10, 20_001).item() == pytest.approx(math.log(math.sqrt(2) / 3), abs=1e-8)


class Network(Normal):
    def __init__(self):
        super().__init__([[1.0]])
        self.event_shape = None


@pytest.mark.parametrize(
    ("energy", "low", "high", "points", "complaint"),
    [
        (DoubleWell(dim=3), -1, 1, 101, r"energy: DoubleWell has events of shape \(3,\)"),
        (Network(), -1, 1, 101, "energy: Network has events of shape None"),
        (DoubleWell(dim=1), -1, 1, 100, "points: 100 is not an odd"),
        (DoubleWell(dim=1), -1, 1, 1, "points: 1 is not an odd"),
        (DoubleWell(dim=2), [0, 1], 1, 101, r"low: \[0, 1\] is not below high: 1"),
        (DoubleWell(dim=2), -1, [1, 1, 1], 101, r"low, high: \[1, 1, 1\] is not one number for each of 2"),
    ],
)
def test_what_does_not_fit(energy, low, high, points, complaint):
    for integrate in (log_z, lambda *given: expectation(lambda x: x, *given)):
        with pytest.raises(ConfigError, match=complaint):
            integrate(energy, low, high, points)
