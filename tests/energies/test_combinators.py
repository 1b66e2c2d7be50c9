"""Energies made of energies: products, temperature, mixtures."""

import math

import pytest
import torch
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.energies.known.callable import CallableEnergy
from dxmi_plugins.energies.known.combinators import Mixture, Tempered
from dxmi_plugins.energies.known.funnel import Funnel
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.energies.mlp import MLPEnergy
from torch import Generator
from torch.distributions import MultivariateNormal

from dxmi.api import ConfigError, Energy, ExactDraws, Product
from dxmi.config import build_plugin

A = ([1.0, -1.0], [[2.0, 0.5], [0.5, 1.0]])
B = ([0.0, 2.0], [[1.0, -0.3], [-0.3, 0.5]])


def normal(mean, covariance):
    return GaussianMixture(means=[mean], covariances=[covariance])


def points(n=300, scale=2.0):
    return scale * torch.randn(n, 2, generator=Generator().manual_seed(0), dtype=torch.float64)


def unscaled(x):
    """The energy of a normal without its constant: (B,2) -> (B,)."""
    return (x.square() @ torch.tensor([0.5, 2.0], dtype=x.dtype)) / 2


UNSCALED_LOG_Z = math.log(2 * math.pi)  # its covariance is diag(2, 1/2)


@pytest.mark.parametrize(
    "energy",
    [
        normal(*A) + 2 * normal(*B),
        Tempered(Banana(), 1.7),
        Tempered(normal(*A) + Banana(), 0.5),
        Mixture([Banana(), normal(*B), CallableEnergy(unscaled, [2], UNSCALED_LOG_Z)], [1, 2, 3]),
        Mixture([Funnel(2), Mixture([Banana(), normal(*A)])]),
    ],
    ids=["product", "tempered", "tempered_product", "mixture", "mixture_of_mixtures"],
)
def test_gradients_are_autograds(energy):
    x = points()
    e, gradient = energy.with_gradient(x)
    e_autograd, autograd = Energy.with_gradient(energy, x)
    torch.testing.assert_close(gradient, autograd, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e, e_autograd, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(e, energy(x), rtol=1e-13, atol=1e-13)
    assert energy.event_shape == (2,) and not gradient.requires_grad


# products


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_product_of_gaussians_is_a_gaussian(power):
    """TOOLBOX row 14: precisions add, and so do precisions times means."""
    (ma, ca), (mb, cb) = ([torch.tensor(part, dtype=torch.float64) for part in expert] for expert in (A, B))
    pa, pb = ca.inverse(), power * cb.inverse()
    covariance = (pa + pb).inverse()
    mean = covariance @ (pa @ ma + pb @ mb)
    x = points()
    difference = (normal(*A) + power * normal(*B))(x) + MultivariateNormal(mean, covariance).log_prob(x)
    assert difference.std() < 1e-12


def test_sums_and_multiples_of_energies():
    a, b, x = normal(*A), Banana(), points()
    torch.testing.assert_close((a + 2 * b)(x), a(x) + 2 * b(x))
    torch.testing.assert_close((b * 0.5 + a + b)(x), 1.5 * b(x) + a(x))
    torch.testing.assert_close(Product([a, b], [1.0, -1.0])(x), a(x) - b(x))
    assert (a + b).log_z is None


def test_a_list_in_yaml_is_a_product():
    energy = build_plugin(Energy, [{"name": "banana", "b": 0.5}, {"name": "gaussian_mixture", "preset": "gmm9"}, "mlp"])
    assert isinstance(energy, Product) and energy.event_shape == (2,)
    x = points().float()
    parts = [Banana(0.5), GaussianMixture("gmm9"), energy.experts[2]]
    torch.testing.assert_close(energy(x), sum(part(x) for part in parts))
    nested = build_plugin(Energy, {"name": "tempered", "tau": 2, "energy": ["banana", "banana"]})
    torch.testing.assert_close(nested(x), Banana()(x))


# temperature


def test_a_tempered_gaussian_is_wider():
    """TOOLBOX row 1: ``log p(a) - log p(b) = (E(b) - E(a))/tau``, and a normal's covariance is tau times as large."""
    tau, (mean, covariance) = 2.5, A
    wide = MultivariateNormal(torch.tensor(mean).double(), tau * torch.tensor(covariance).double())
    energy, a, b = normal(*A), points(), points(scale=0.5)
    log_ratio = wide.log_prob(a) - wide.log_prob(b)
    torch.testing.assert_close(log_ratio, (energy(b) - energy(a)) / tau, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_ratio, Tempered(energy, tau)(b) - Tempered(energy, tau)(a), rtol=0, atol=1e-12)


def test_temperature_one_keeps_what_is_known():
    same, other = Tempered(Banana(), 1), Tempered(Banana(), 2)
    assert same.log_z == 0 and other.log_z is None
    draws = [energy.sample(5, Generator().manual_seed(0)) for energy in (same, Banana())]
    assert draws[0].equal(draws[1])
    assert isinstance(same, ExactDraws) and not isinstance(other, ExactDraws)


# mixtures


def test_a_mixture_of_normals_is_a_gaussian_mixture():
    one = GaussianMixture(weights=[1, 3], means=[A[0], B[0]], covariances=[A[1], B[1]])
    other, x = Mixture([normal(*A), normal(*B)], [1, 3]), points()
    torch.testing.assert_close(other(x), one(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(other.with_gradient(x), one.with_gradient(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.convolved(0.3)(x), one.convolved(0.3)(x), rtol=1e-13, atol=1e-13)
    assert other.log_z == 0


def test_a_mixture_counts_every_log_z():
    """Energies with any constants mix as their densities do."""
    plain = Mixture([normal([0.0, 0.0], [[2.0, 0.0], [0.0, 0.5]]), Banana()], [1, 2])
    wrapped = Mixture([CallableEnergy(unscaled, [2], UNSCALED_LOG_Z), Banana()], [1, 2])
    x = points()
    torch.testing.assert_close(plain(x), wrapped(x), rtol=1e-13, atol=1e-13)
    assert isinstance(plain, ExactDraws) and not isinstance(wrapped, ExactDraws)


def test_mixture_draws_come_from_their_components_by_weight():
    far = normal([100.0, 50.0], A[1])
    x = Mixture([Banana(), far], [3, 1]).sample(20_000, Generator().manual_seed(0))
    away = x[:, 0] > 50
    share = away.double().mean()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5
    assert x[away].mean(0).sub(torch.tensor([100.0, 50.0])).abs().max() < 4 * (2 / 5000) ** 0.5
    assert abs(x[~away, 1].square().mean() - 3) < 4 * (60 / 15_000) ** 0.5  # row 9; 60 = E[y^4] - 9
    both = [Mixture([Banana(), far]).double().sample(9, Generator().manual_seed(1)) for _ in range(2)]
    assert both[0].equal(both[1]) and both[0].dtype == torch.float64


def test_a_point_outside_every_support_has_infinite_energy():
    def box(x):
        return torch.where(x.abs().amax(1) < 1, 0.0, torch.inf)

    mixture = Mixture([CallableEnergy(box, [2], math.log(4))] * 2)
    assert mixture(torch.tensor([[0.0, 0.5], [0.0, 2.0]])).tolist() == [pytest.approx(math.log(4)), math.inf]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Product([]), "experts: give at least one"),
        (lambda: Product([Banana()], [1, 2]), "weights: 2 of them for 1 experts"),
        (lambda: Banana() + Funnel(3), "experts: their event shapes differ"),
        (lambda: Tempered(Banana(), 0), "tau: 0 is not positive"),
        (lambda: Tempered(Banana(), math.nan), "tau: nan is not positive"),
        (lambda: Mixture([]), "energies: give at least one"),
        (lambda: Mixture([Banana(), MLPEnergy()]), "energies: number 1, a MLPEnergy, has no known log Z"),
        (lambda: Mixture([Banana(), Funnel(3)]), "energies: their event shapes differ"),
        (lambda: Mixture([Banana()], [1, 2]), "weights: .* are not 1 positive"),
        (lambda: Mixture([Banana(), Banana()], [1, -2]), "weights: .* are not 2 positive"),
    ],
)
def test_impossible_options_are_refused_in_one_line(build, says):
    with pytest.raises(ConfigError, match=f"^{says}") as refused:
        build()
    assert "\n" not in str(refused.value)


def test_energies_can_be_summed_and_divided():
    a, b, x = GaussianMixture("gmm9"), Banana(), torch.randn(5, 2)
    torch.testing.assert_close(sum([a, b, b])(x), a(x) + 2 * b(x))
    torch.testing.assert_close((a / 2)(x), a(x) / 2)


def test_a_first_look_in_inference_mode_leaves_gradients_possible():
    energy, x = GaussianMixture("gmm9"), torch.randn(5, 2)
    with torch.inference_mode():
        energy(x)
    x.requires_grad_()
    energy(x).sum().backward()
    torch.testing.assert_close(x.grad, energy.with_gradient(x)[1])
