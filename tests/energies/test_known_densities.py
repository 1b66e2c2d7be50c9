"""gaussian_mixture, funnel, banana and callable: energies, gradients, draws and conditionals against closed forms."""

import math

import pytest
import torch
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.energies.known.callable import CallableEnergy
from dxmi_plugins.energies.known.funnel import Funnel
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from torch import Generator, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dxmi.api import ConfigError, Energy
from dxmi.config import build_plugin

FULL = {
    "weights": [1.0, 3.0],
    "means": [[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]],
    "covariances": [[[1.0, 0.6, 0.1], [0.6, 2.0, -0.4], [0.1, -0.4, 0.5]], [[0.5, 0, 0.2], [0, 1, 0], [0.2, 0, 1]]],
}
DENSITIES = {
    "gmm9": lambda: GaussianMixture("gmm9"),
    "gmm25": lambda: GaussianMixture("gmm25"),
    "gmm40": lambda: GaussianMixture("gmm40"),
    "eight_gaussians": lambda: GaussianMixture("eight_gaussians"),
    "isotropic": lambda: GaussianMixture(
        "gmm9", weights=list(range(1, 10)), covariances=[0.1 * k for k in range(1, 10)]
    ),
    "diagonal": lambda: GaussianMixture(means=[[0, 0, 1], [1, 2, 0]], covariances=[[1, 2, 3], [0.5, 2, 1]]),
    "full": lambda: GaussianMixture(**FULL),
    "far_apart": lambda: GaussianMixture(means=[[-1e3, 0], [1e3, 5]], covariances=[1, 2]),
    "funnel": Funnel,
    "banana": lambda: Banana(b=0.7, scale=1.5),
}
every = pytest.mark.parametrize("name", DENSITIES)


def seeded(seed=0):
    return Generator().manual_seed(seed)


def near(energy, n=500):
    """Points (n,*S) around the density in float64: exact draws and noise."""
    x = energy.double().sample(n, seeded())
    return x + torch.randn(x.shape, generator=seeded(1), dtype=x.dtype)


def log_normal(x, mean, std):
    return -(((x - mean) / std) ** 2) / 2 - (std * math.sqrt(2 * math.pi)).log()


def log_density(energy, x):
    """The same written down apart: (B,D) -> (B,)."""
    if isinstance(energy, GaussianMixture):
        components = MultivariateNormal(energy.means, energy.covariances)
        return MixtureSameFamily(Categorical(logits=energy.log_weights), components).log_prob(x)
    first = log_normal(x[:, 0], 0, x.new_tensor(energy.scale))
    if isinstance(energy, Banana):
        return first + log_normal(x[:, 1], energy.b * (x[:, 0] ** 2 - energy.scale**2), x.new_ones(()))
    return first + log_normal(x[:, 1:], 0, (x[:, :1] / 2).exp()).sum(1)


def assert_mean(values, exact):
    """The mean over rows is within four standard errors of what it should be."""
    error = (values.mean(0) - exact).abs() / (values.std(0) / len(values) ** 0.5)
    assert error.max() < 4, f"{error.max():.1f} standard errors"


@every
def test_the_energy_is_minus_the_log_density(name):
    """TOOLBOX row 1, at temperature 1."""
    energy = DENSITIES[name]()
    a = near(energy)
    torch.testing.assert_close(energy(a), -log_density(energy, a), rtol=1e-10, atol=1e-10)
    assert energy.log_z == 0


@every
def test_the_gradient_in_closed_form_is_autograds(name):
    energy = DENSITIES[name]()
    x = near(energy)
    e, gradient = energy.with_gradient(x)
    e_autograd, autograd = Energy.with_gradient(energy, x)
    torch.testing.assert_close(gradient, autograd, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e, e_autograd, rtol=1e-14, atol=1e-14)
    assert not e.requires_grad and not gradient.requires_grad


@every
def test_memory_order_and_precision_do_not_matter(name):
    energy = DENSITIES[name]()
    x = near(energy)
    for y in (x.contiguous(), x.T.contiguous().T, x.repeat(1, 2)[:, : x.shape[1]], x.float()):
        for found, wanted in zip(energy.with_gradient(y), energy.with_gradient(x), strict=True):
            tolerance = 1e-12 if y.dtype == x.dtype else 2e-3
            assert found.dtype == y.dtype
            torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


def test_densities_integrate_to_one():
    boxes = {"gmm9": (-10, 10, -10, 10), "full": (-9, 9, -9, 9), "banana": (-8, 8, -9, 60)}
    full = GaussianMixture(means=[[0, 0], [1, 2]], covariances=[[[1, 0.5], [0.5, 2]], [[2, -0.3], [-0.3, 0.5]]])
    for name, energy in {"gmm9": GaussianMixture("gmm9"), "full": full, "banana": Banana()}.items():
        left, right, low, high = boxes[name]
        a, b = (torch.linspace(*ends, 501, dtype=torch.float64) for ends in ((left, right), (low, high)))
        volume = (a[1] - a[0]) * (b[1] - b[0])
        assert torch.exp(-energy(torch.cartesian_prod(a, b))).sum() * volume == pytest.approx(1, abs=1e-6), name


@pytest.mark.parametrize("name", ["gmm9", "gmm40", "isotropic", "diagonal", "full"])
def test_mixture_draws_have_the_moments_of_the_mixture(name):
    energy = DENSITIES[name]().double()
    x, w, m = energy.sample(50_000, seeded()), energy.log_weights.exp(), energy.means
    assert_mean(x, w @ m)
    second = (w[:, None, None] * (energy.covariances + m[:, :, None] * m[:, None])).sum(0)
    assert_mean((x[:, :, None] * x[:, None]).flatten(1), second.flatten())


def test_banana_draws_have_its_moments():
    """TOOLBOX row 9."""
    b, s = 0.7, 1.5
    x = Banana(b, s).double().sample(100_000, seeded())
    exact = torch.tensor([0, 0, s**2, 1 + 2 * b**2 * s**4, 0, 2 * b * s**4], dtype=torch.float64)
    assert_mean(torch.cat([x, x**2, x.prod(1, keepdim=True), (x[:, :1] ** 2 * x[:, 1:])], 1), exact)


def test_funnel_draws_have_its_moments():
    x = Funnel(dim=4, scale=1.0).double().sample(100_000, seeded())
    assert_mean(x, torch.zeros(4, dtype=torch.float64))
    assert_mean(x**2, torch.tensor([1.0, *[math.exp(0.5)] * 3], dtype=torch.float64))


@every
def test_draws_follow_the_generator_and_the_module(name):
    energy = DENSITIES[name]()
    x = energy.sample(5, seeded())
    assert x.shape == (5, *energy.event_shape) and x.dtype == torch.float32
    assert x.equal(energy.sample(5, seeded())) and not x.equal(energy.sample(5, seeded(1)))
    assert energy.double().sample(5, seeded()).dtype == torch.float64
    assert energy.sample(0).shape == (0, *energy.event_shape)


# Gaussian mixtures


def test_presets_are_the_published_mixtures():
    """MATH 5."""
    for name, line in (("gmm9", (-5, 0, 5)), ("gmm25", (-10, -5, 0, 5, 10))):
        energy = GaussianMixture(name)
        assert {tuple(m) for m in energy.modes.tolist()} == {(a, b) for a in line for b in line}
        assert energy.covariances.equal((0.3 * torch.eye(2, dtype=torch.float64)).expand(len(line) ** 2, 2, 2))
    state = torch.get_rng_state()
    energy = GaussianMixture("gmm40")
    assert state.equal(torch.get_rng_state())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert energy.modes.equal((torch.rand((40, 2)) - 0.5) * 2 * 40)
    assert energy.covariances[0, 0, 0].sqrt() == pytest.approx(math.log(1 + math.e))
    ring = GaussianMixture("eight_gaussians")
    torch.testing.assert_close(ring.modes.norm(dim=1), torch.full((8,), 2.0))
    assert torch.cdist(ring.modes, ring.modes).fill_diagonal_(9).min() == pytest.approx(4 * math.sin(math.pi / 8))


def test_far_from_all_modes_energy_and_gradient_are_right():
    x = torch.tensor([[1e4, 1e4], [-1e4, 2e4], [0, -1e4]])
    for name in ("gmm9", "gmm40", "isotropic", "far_apart"):
        energy = DENSITIES[name]()
        e, gradient = energy.with_gradient(x)
        e_exact, exact = energy.with_gradient(x.double())
        torch.testing.assert_close(e.double(), e_exact, rtol=1e-6, atol=0)
        assert ((gradient - exact).norm(dim=1) / exact.norm(dim=1)).max() < 1e-6


@pytest.mark.parametrize("name", ["gmm40", "isotropic", "far_apart"])
def test_float32_keeps_three_decimals(name):
    energy = DENSITIES[name]()
    x = energy.sample(20_000, seeded())
    exact = energy(x.double())
    assert ((energy(x) - exact).abs() / exact.abs().clamp(min=1)).max() < 1e-3


def test_a_conditional_of_a_correlated_normal_is_exact():
    rho = 0.9
    energy = GaussianMixture(means=[[1.0, -2.0]], covariances=[[[1.0, rho], [rho, 1.0]]])
    white = GaussianMixture(means=[[0.0, 0.0]])
    x = torch.randn(100, 2, generator=seeded(), dtype=torch.float64)
    eps = white.conditional(x, 0, seeded(1))  # the noise alone
    drawn = energy.conditional(x, 0, seeded(1))
    torch.testing.assert_close(drawn, 1 + rho * (x[:, 1] + 2) + (1 - rho**2) ** 0.5 * eps, rtol=0, atol=1e-12)
    assert abs(eps.mean()) < 4 / 10 and 0.6 < eps.var() < 1.4


@pytest.mark.parametrize("name", ["diagonal", "full"])
@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_mixtures_conditional_is_its_density_along_a_line(name, i):
    energy, at = DENSITIES[name](), torch.tensor([0.8, 0.9, 0.2], dtype=torch.float64)
    line = at.repeat(4001, 1)
    line[:, i] = torch.linspace(-15, 15, 4001, dtype=torch.float64)
    p = (-energy(line)).softmax(0)
    statistics = (lambda x: x, lambda x: x**2, lambda x: x.cos(), lambda x: (2 * x).sin())
    drawn = energy.conditional(at.expand(50_000, 3), i, seeded())
    exact = torch.stack([p @ f(line[:, i]) for f in statistics])
    assert_mean(torch.stack([f(drawn) for f in statistics], 1), exact)


def test_convolved_is_the_convolution():
    energy = GaussianMixture(weights=[1, 2], means=[[-1], [2]], covariances=[0.5, 1.5])
    x, u = (torch.linspace(-a, a, n, dtype=torch.float64) for a, n in ((6, 25), (12, 4001)))
    p = torch.exp(-energy(u[:, None])) * log_normal(x[:, None], u, x.new_tensor(0.7).sqrt()).exp()
    exact = -(p.sum(1) * (u[1] - u[0])).log()
    torch.testing.assert_close(energy.convolved(0.7)(x[:, None]), exact, rtol=0, atol=1e-10)


def test_convolved_is_the_law_of_draws_with_noise():
    energy = GaussianMixture(**FULL).double()
    wide = energy.convolved(0.7)
    assert wide.log_z == 0 and wide.modes.equal(energy.modes)
    x = energy.sample(50_000, seeded())
    noisy = x + 0.7**0.5 * torch.randn(x.shape, generator=seeded(1), dtype=x.dtype)
    draws = wide.sample(50_000, seeded(2))
    assert_mean(wide(noisy) - wide(draws), 0)
    assert_mean((noisy[:, :, None] * noisy[:, None] - draws[:, :, None] * draws[:, None]).flatten(1), 0)


@pytest.mark.parametrize("name", ["gmm9", "full"])
def test_tweedie(name):
    """TOOLBOX row 22: ``E[X | x + sigma*eps] = x - sigma^2 * grad E_sigma(x)``."""
    energy, variance = DENSITIES[name](), 0.4
    x = near(energy)
    noise = variance * torch.eye(x.shape[1], dtype=x.dtype)
    noisy = energy.covariances + noise
    responsibility = (energy.log_weights + MultivariateNormal(energy.means, noisy).log_prob(x[:, None])).softmax(1)
    gain = energy.covariances @ torch.linalg.inv(noisy)
    means = energy.means + (gain @ (x[:, None] - energy.means)[..., None])[..., 0]
    direct = (responsibility[..., None] * means).sum(1)
    tweedie = x - variance * energy.convolved(variance).with_gradient(x)[1]
    torch.testing.assert_close(tweedie, direct, rtol=0, atol=1e-12)


# Options


@pytest.mark.parametrize(
    "covariances", [2, 2.0, [2, 2.0], [[2, 2, 2], [2, 2, 2]], [[[2, 0, 0], [0, 2, 0], [0, 0, 2]]] * 2]
)
def test_covariances_in_every_form(covariances):
    options = {"name": "gaussian_mixture", "means": [[0, 1, 2], [3, 4, 5]], "covariances": covariances}
    energy = build_plugin(Energy, options)
    assert energy.covariances.equal((2 * torch.eye(3, dtype=torch.float64)).expand(2, 3, 3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "gaussian_mixture"}, "preset: give either"),
        ({"name": "gaussian_mixture", "preset": "gmm9", "means": [[0]]}, "preset: give either"),
        ({"name": "gaussian_mixture", "preset": "gmm8"}, "preset: no 'gmm8'; give gmm9"),
        ({"name": "gaussian_mixture", "means": []}, "means: give K lists"),
        ({"name": "gaussian_mixture", "means": [[0, 1], [2]]}, "means: the lists differ"),
        ({"name": "gaussian_mixture", "means": [[0, math.nan]]}, "means: not every number"),
        ({"name": "gaussian_mixture", "preset": "gmm9", "weights": [1]}, "weights: .* are not 9 positive"),
        ({"name": "gaussian_mixture", "means": [[0], [1]], "weights": [1, 0]}, "weights: .* are not 2 positive"),
        ({"name": "gaussian_mixture", "means": [[0]], "covariances": -1}, "covariances: number 0 is not"),
        ({"name": "gaussian_mixture", "means": [[0]], "covariances": [1, 2]}, r"covariances: their shape is \(2,\)"),
        (
            {"name": "gaussian_mixture", "means": [[0, 0]], "covariances": [[[1, 2], [2, 1]]]},
            "covariances: number 0 is not",
        ),
        (
            {"name": "gaussian_mixture", "means": [[0, 0]], "covariances": [[[1, 0.5], [0, 1]]]},
            "covariances: number 0 is not",
        ),
        ({"name": "funnel", "dim": 1}, "dim: 1"),
        ({"name": "funnel", "scale": 0}, "scale: 0"),
        ({"name": "banana", "scale": -1}, "scale: -1"),
        ({"name": "banana", "b": math.inf}, "b: inf"),
        ({"name": "callable", "function": "nowhere", "shape": [2]}, "function: 'nowhere' is not of the form"),
        ({"name": "callable", "function": "no_such:f", "shape": [2]}, "function: no_such cannot be imported"),
        ({"name": "callable", "function": "math:no_such", "shape": [2]}, "function: math has no attribute no_such"),
        ({"name": "callable", "function": "math:pi", "shape": [2]}, "function: math:pi is no function"),
        ({"name": "callable", "function": "math:sin", "shape": [2]}, "function: it fails on x of shape"),
        ({"name": "callable", "function": "torch:sum", "shape": [2]}, r"function: it returns shape \(\) for x"),
        ({"name": "callable", "function": "torch:square", "shape": [3]}, r"function: it returns shape \(2, 3\)"),
        ({"name": "callable", "function": "torch:numel", "shape": [3]}, "function: it returns int"),
        ({"name": "callable", "function": "torch:square", "shape": [0]}, "shape: "),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, says):
    with pytest.raises(ConfigError, match=f"^{says}") as refused:
        build_plugin(Energy, options)
    assert "\n" not in str(refused.value)


# callable


def bowl(x):
    return x.square().flatten(1).sum(1) / 2


@pytest.mark.parametrize("function", [bowl, "test_known_densities:bowl"])
def test_a_function_becomes_an_energy(function):
    energy = CallableEnergy(function, [2, 3], log_z=3 * math.log(2 * math.pi))
    x = torch.randn(5, 2, 3)
    e, gradient = energy.with_gradient(x)
    assert energy.event_shape == (2, 3) and energy.log_z == pytest.approx(5.5136, abs=1e-4)
    torch.testing.assert_close(e, bowl(x))
    torch.testing.assert_close(gradient, x)


def test_a_network_becomes_an_energy_with_its_parameters():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    energy = CallableEnergy(net, [3]).double()
    assert len(list(energy.parameters())) == 4 and energy.log_z is None
    assert energy(torch.randn(5, 3, dtype=torch.float64)).dtype == torch.float64


def test_a_funnel_has_a_gradient_where_its_density_underflows():
    energy, x = Funnel(10), torch.tensor([[-120.0, *[3.0] * 9]])
    e, gradient = energy.with_gradient(x)
    assert e.isfinite().all() and gradient.isfinite().all() and e > 1e30
