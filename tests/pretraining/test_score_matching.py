"""Score matching on densities with known scores (TOOLBOX rows 15-22 and 26)."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.vgs import VGS
from torch import Generator, nn

from dxmi.api import ConfigError
from dxmi.pretraining.noise_levels import ddpm_loss
from dxmi.pretraining.score_losses import (
    ddpm,
    denoising,
    explicit,
    hutchinson,
    implicit,
    multi_noise,
    probes,
    residual,
    sliced,
)
from dxmi.pretraining.scores import DIALECTS, asymmetry, convert, negative_gradient

A = torch.tensor([[2.0, 0.5, -1.0], [0.5, 1.0, 0.3], [-1.0, 0.3, 3.0]], dtype=torch.float64)
TILTED = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
MIXTURE = GaussianMixture(means=[[-1.0, 0.0], [1.0, 0.5]], covariances=0.09, weights=[1, 3])


def randn(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def linear(matrix, shape=None):
    """s(x) = -matrix x, for events of any shape."""
    return lambda x: (-x.flatten(1) @ matrix.mT).view(x.shape)


def within(values, expected, errors=4.0):
    """Whether the mean of (n,) is ``expected`` within so many standard errors."""
    return abs(values.mean() - expected) < errors * values.std() / math.sqrt(len(values))


def test_explicit_is_zero_for_the_known_score_alone():
    x = MIXTURE.sample(100, Generator().manual_seed(0)).double()
    known = -MIXTURE.with_gradient(x)[1]
    assert explicit(negative_gradient(MIXTURE, x), known).max() < 1e-20
    torch.testing.assert_close(explicit(known + 2.0, known), torch.full((100,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (1, 3, 1)], ids=["vectors", "images"])
def test_implicit_sums_over_the_event(shape):
    """||s||^2/2 + tr(grad s) of s = -Ax is |Ax|^2/2 - tr A for every shape: no mean over rows or entries."""
    x = randn(5, 3)
    expected = (x @ A).square().sum(1) / 2 - A.trace()
    torch.testing.assert_close(implicit(linear(A), x.view(5, *shape)), expected)


def test_the_implicit_optimum_is_the_inverse_covariance():
    """Row 16: of linear scores -Px the best on data of covariance S has P = S^-1."""
    x = randn(500, 3) @ torch.linalg.cholesky(A)
    p = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [p], max_iter=100, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = implicit(linear(p), x).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert (p - torch.linalg.inv(x.mT @ x / len(x))).abs().max() < 1e-8


@pytest.mark.parametrize("shape", [(3,), (1, 3, 1)], ids=["vectors", "images"])
@pytest.mark.parametrize(
    ("kind", "variance"),
    [("gaussian", 2 * A.square().sum()), ("rademacher", 2 * (A.square().sum() - A.diagonal().square().sum()))],
)
def test_probes_estimate_the_trace(kind, variance, shape):
    """Row 17: unbiased, with variance 2||A||_F^2, of which signs leave out the diagonal."""
    n = 40_000
    x = randn(1, 3).expand(n, 3).reshape(n, *shape)
    v = probes(x, kind, Generator().manual_seed(1))
    traces = hutchinson(linear(A), x, v) - (x.flatten(1) @ A).square().sum(1) / 2
    assert within(traces, -A.trace())
    assert within((traces + A.trace()).square(), variance)


def test_sliced_has_the_mean_of_implicit():
    """E[v v^T] = I: the same optimum, where the square is projected too."""
    x = randn(1, 3).expand(40_000, 3)
    for kind in ("gaussian", "rademacher"):
        v = probes(x, kind, Generator().manual_seed(1))
        assert within(sliced(linear(A), x, v), implicit(linear(A), x[:1])[0])


def test_denoising_differs_from_explicit_by_a_constant():
    """Row 18: for two scores the differences are the same, and the constant is C3 - C2 (Vincent 2011).

    C3 = E||w||^2/(2 sigma^2) = D/(2 sigma^2), C2 = E||s_p||^2/2, both on noised data.
    """
    n, sigma, noise = 200_000, 0.4, randn(200_000, 2, seed=1)
    x = MIXTURE.sample(n, Generator().manual_seed(0)).double()
    noised = x + sigma * noise
    known = -MIXTURE.convolved(sigma**2).with_gradient(noised)[1]
    scores = {"near": lambda y: -y / 1.5, "far": lambda y: 0.3 * y - 1}
    gaps = {k: denoising(s, x, noise, sigma) - explicit(s(noised), known) for k, s in scores.items()}
    assert within(gaps["near"] - gaps["far"], 0.0)
    constant = 2 / (2 * sigma**2) - known.square().sum(1) / 2
    assert within(gaps["near"] - constant, 0.0)
    assert gaps["near"].mean() > 1  # so equality with explicit itself would show


def test_a_network_learns_the_score_of_the_noised_mixture():
    """Row 18: squared error below 2 % of the score's square (.5 to .9 % over 8 seeds).

    Row 21: a free network becomes a gradient nearly, from an asymmetry of .7 to 1.4 to one of .028 to .049.
    """
    torch.manual_seed(0)
    sigma = 0.3
    network = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    for _ in range(1000):
        x = MIXTURE.sample(512)
        loss = residual(network, x, torch.randn_like(x), sigma).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = MIXTURE.convolved(sigma**2).sample(5000)
    known = -MIXTURE.convolved(sigma**2).with_gradient(x)[1]
    assert 0.02 < asymmetry(network, x) < 0.07
    with torch.no_grad():
        assert (network(x) - known).square().sum() / known.square().sum() < 0.02


def test_the_residual_is_sigma_squared_times_denoising():
    x, noise = randn(5, 1, 2, 2), randn(5, 1, 2, 2, seed=1)
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 9.0], dtype=torch.float64)

    def score(y):
        return -y.sin()

    noised = x + sigma.view(-1, 1, 1, 1) * noise
    by_hand = (score(noised) + (noised - x) / sigma.view(-1, 1, 1, 1) ** 2).square().sum((1, 2, 3)) / 2
    torch.testing.assert_close(denoising(score, x, noise, sigma), by_hand)
    torch.testing.assert_close(residual(score, x, noise, sigma), sigma**2 * by_hand)
    many = multi_noise(lambda y, s: score(y), x, noise, sigma)
    torch.testing.assert_close(many, sigma**2 * by_hand)
    torch.testing.assert_close(multi_noise(lambda y, s: score(y), x, noise, sigma, 0.0), by_hand)
    torch.testing.assert_close(multi_noise(lambda y, s: score(y), x, noise, sigma, -1.0), by_hand / sigma)


def test_the_multi_noise_optimum_on_a_gaussian():
    """Row 20: N(0, v I) keeps D/2*v/(v + sigma^2) at each level, which no score undercuts: 1.2857 at sigma 1."""
    n, v, sigma = 100_000, 1.8, torch.tensor([0.3, 1.0, 3.0], dtype=torch.float64)
    for level in sigma:
        x, noise, sigmas = v**0.5 * randn(n, 4), randn(n, 4, seed=1), level.expand(n)
        best = multi_noise(lambda y, s: -y / (v + s[:, None] ** 2), x, noise, sigmas)
        assert within(best, 2 * v / (v + level**2))
        worse = multi_noise(lambda y, s: -1.2 * y / (v + s[:, None] ** 2), x, noise, sigmas)
        assert worse.mean() > best.mean()


def test_asymmetry():
    """Row 21: 0 for minus a gradient, ||J - J^T||/||J|| otherwise, exactly and with probes."""
    x = randn(50, 2)
    torch.manual_seed(0)
    network = MLPEnergy(32)
    network(x.float())  # it reads its size
    for energy in (MIXTURE, network.double()):
        assert asymmetry(lambda y, energy=energy: negative_gradient(energy, y), x) < 1e-12
    tilted = linear(A + TILTED)
    expected = 2 * TILTED.norm() / (A + TILTED).norm()  # of J - J^T only twice the tilt is left
    for shape in ((3,), (1, 3, 1)):
        many = randn(20_000, 3).view(-1, *shape)
        torch.testing.assert_close(asymmetry(tilted, many[:4]), expected)
        estimate = asymmetry(tilted, many, probes(many, "rademacher", Generator().manual_seed(0)))
        torch.testing.assert_close(estimate, expected, rtol=0.02, atol=0)
    assert asymmetry(lambda y: torch.zeros_like(y) * y, x) == 0


def test_asymmetry_of_a_network_with_attention():
    """Its fast forms cannot be differentiated twice, as probes need; a short event's whole Jacobian agrees."""
    x, queries = randn(4000, 1, 3, 4) / 2, randn(4, 4, seed=1)

    def score(y):
        return nn.functional.scaled_dot_product_attention(y @ queries, y, y)

    found = asymmetry(score, x, probes(x, "rademacher", Generator().manual_seed(2)))
    assert found.item() == pytest.approx(asymmetry(score, x).item(), rel=0.02) and found > 0.1


# (alpha, sigma) on the circle, on the line and on neither
@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (0.3, 0.7), (1.0, 5.0)])
def test_dialects_say_the_same(alpha, sigma):
    x0, eps = randn(4, 1, 2, 2), randn(4, 1, 2, 2, seed=1)
    x = alpha * x0 + sigma * eps
    said = {
        "score": -eps / sigma,
        "epsilon": eps,
        "sample": x0,
        "v_prediction": alpha * eps - sigma * x0,
        "flow_prediction": eps - x0,
    }
    assert set(said) == set(DIALECTS)
    stds = torch.full((4,), sigma, dtype=torch.float64)
    for given in DIALECTS:
        for wanted in DIALECTS:
            found = convert(said[given], given, wanted, x, alpha, stds)
            torch.testing.assert_close(found, said[wanted], rtol=0, atol=1e-12)
    with pytest.raises(ConfigError, match="prediction_type: 'odd' is none of score"):
        convert(x, "odd", "score", x, alpha, sigma)


def test_dialects_are_those_of_diffusers():
    scheduler, t = DDPMScheduler(), torch.tensor([300])
    x0, eps = randn(1, 1, 4, 4), randn(1, 1, 4, 4, seed=1)
    alpha, sigma = (
        root.double() for root in (scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt())
    )
    x = scheduler.add_noise(x0, eps, t)
    v = scheduler.get_velocity(x0, eps, t)
    torch.testing.assert_close(convert(eps, "epsilon", "v_prediction", x, alpha, sigma), v, rtol=0, atol=1e-6)
    for kind, output in (("epsilon", eps), ("sample", x0), ("v_prediction", v)):
        step = DDPMScheduler(prediction_type=kind, clip_sample=False).step(output, 300, x)
        clean = convert(output, kind, "sample", x, alpha, sigma)
        torch.testing.assert_close(clean, step.pred_original_sample, rtol=0, atol=1e-5)
    flow = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    flow.set_timesteps(10)
    flow._init_step_index(flow.timesteps[3])
    s = float(flow.sigmas[3])
    x = (1 - s) * x0 + s * eps
    clean = convert(eps - x0, "flow_prediction", "sample", x, 1 - s, s)
    torch.testing.assert_close(clean, flow.convert_model_output(eps - x0, sample=x), rtol=0, atol=1e-12)


def posterior_mean(x, alpha, sigma):
    """E[x0 | alpha*x0 + sigma*eps = x] of the mixture, by its components' posteriors."""
    v, w = 0.09, MIXTURE.log_weights
    spread = alpha**2 * v + sigma**2
    away = x[:, None] - alpha * MIXTURE.means
    shares = (w - away.square().sum(2) / (2 * spread)).softmax(1)
    return (shares[:, :, None] * (MIXTURE.means + alpha * v / spread * away)).sum(1)


def test_tweedie_gives_the_posterior_mean():
    """Row 22: x + sigma^2 s = E[x0|x] to rounding."""
    sigma = 0.7
    x = 2 * randn(50, 2)
    score = -MIXTURE.convolved(sigma**2).with_gradient(x)[1]
    found = convert(score, "score", "sample", x, 1.0, sigma)
    torch.testing.assert_close(found, posterior_mean(x, 1.0, sigma), rtol=0, atol=1e-12)


def test_perturbed_energies():
    """Row 26: x' + beta*S = sqrt(1 - beta)*E[x|x'] (11.13), and its error is beta*||eps + sqrt(beta)*S||^2 (11.16)."""
    beta = 0.3
    alpha, std = (1 - beta) ** 0.5, beta**0.5
    means, scaled = (alpha * MIXTURE.means).tolist(), alpha**2 * 0.09 + beta
    perturbed = GaussianMixture(weights=[1, 3], means=means, covariances=scaled)
    x, eps = 2 * randn(50, 2), randn(50, 2, seed=1)
    noised = alpha * x + std * eps

    def score(y):
        return -perturbed.with_gradient(y)[1]

    denoised = noised + beta * score(noised)
    torch.testing.assert_close(denoised, alpha * posterior_mean(noised, alpha, std), rtol=0, atol=1e-12)
    torch.testing.assert_close(convert(score(noised), "score", "sample", noised, alpha, std) * alpha, denoised)
    error = (alpha * x - denoised).square().sum(1)
    torch.testing.assert_close(error, beta * (eps + std * score(noised)).square().sum(1), rtol=0, atol=1e-12)

    def noise_told(y):
        return -std * score(y)

    losses = ddpm(noise_told, "epsilon", x, eps, alpha, std)
    torch.testing.assert_close(error, beta * losses, rtol=0, atol=1e-12)
    torch.testing.assert_close(losses, 2 * residual(score, alpha * x, eps, std), rtol=0, atol=1e-12)


def test_many_small_perturbations_have_the_noise_levels_of_diffusers():
    """Row 26: x' = sqrt(1 - beta) x + sqrt(beta) eps, as vgs noises, has alpha^2 = prod(1 - beta) after many steps."""
    scheduler = DDPMScheduler()
    chain = VGS(1000, "vp", "linear", first=scheduler.betas[-1].item(), last=scheduler.betas[0].item())
    alpha, sigma = chain.marginal(torch.arange(1000))  # its step 0 is the noisiest
    torch.testing.assert_close(alpha.square(), scheduler.alphas_cumprod.flip(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(sigma.square(), 1 - scheduler.alphas_cumprod.flip(0), rtol=0, atol=1e-5)  # 1000 floats


class Says(nn.Module):
    """A network whose output is some function of x, in the clothes of a UNet2DModel."""

    def forward(self, x, t):
        return type("Output", (), {"sample": 0.5 * x.cos()})


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_ddpms_loss_is_score_matching(kind):
    """The mean over entries of twice ``residual``; a clean image's error weighs 1/SNR times as much, v's 1 + 1/SNR."""
    scheduler = DDPMScheduler(prediction_type=kind)
    x0, noise, t = randn(6, 1, 4, 4), randn(6, 1, 4, 4, seed=1), torch.tensor([5, 100, 300, 600, 900, 999])
    alpha, sigma = scheduler.alphas_cumprod[t].double().sqrt(), (1 - scheduler.alphas_cumprod[t]).double().sqrt()

    def score(x):
        return convert(0.5 * x.cos(), kind, "score", x, alpha, sigma)

    weight = {"epsilon": torch.ones(6), "sample": (sigma / alpha) ** 2, "v_prediction": 1 / alpha**2}[kind]
    shrunk = alpha.view(-1, 1, 1, 1) * x0
    expected = (weight * 2 * residual(score, shrunk, noise, sigma)).mean() / 16
    found = ddpm_loss(Says(), scheduler, x0, noise, t)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_ddpm_trains_for_what_diffusers_predicts(kind):
    """The error of the network at diffusers' noised images, from what its scheduler calls the target."""
    scheduler = DDPMScheduler(prediction_type=kind)
    x0, noise, t = torch.rand(6, 1, 4, 4), torch.randn(6, 1, 4, 4), torch.randint(1000, (6,))
    target = {"epsilon": noise, "sample": x0, "v_prediction": scheduler.get_velocity(x0, noise, t)}[kind]
    expected = (Says()(scheduler.add_noise(x0, noise, t), t).sample - target).square().mean()
    torch.testing.assert_close(ddpm_loss(Says(), scheduler, x0, noise, t), expected, rtol=1e-6, atol=0)
