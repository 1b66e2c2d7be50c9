"""Losses of the energy against closed forms."""

import math

import pytest
import torch
from accelerate import Accelerator
from small_players import OneStep, Quadratic

from dxmi.api import ConfigError
from dxmi.config import GameConfig
from dxmi.game.algorithm import build_game
from dxmi.game.energy_losses import (
    energy_loss,
    gcd,
    hinge,
    n2ce,
    nce,
    relativistic,
    squared,
    squared_differences,
    squared_gradients,
)


def two(*numbers):
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


def gradients(loss, *energies):
    return [g.tolist() for g in torch.autograd.grad(loss, energies)]


def test_contrastive_divergence_of_constant_energies():
    """(3.1) with E = 2 on data and 5 on samples: 2 - 5, and gamma weighs 4 + 25."""
    e_data, e_sample = torch.full((3,), 2.0), torch.full((7,), 5.0)
    assert gcd(e_data, e_sample).item() == -3
    assert squared(e_data, e_sample).item() == 29


def test_its_gradient_is_that_of_the_likelihood():
    """For E = k x^2/2 the gradient in k is (E_p x^2 - E_pi x^2)/2: maximum likelihood (TOOLBOX row 11)."""
    k = torch.tensor(1.0, requires_grad=True)
    data, sample = torch.randn(1000) * 2, torch.randn(500)
    gcd(k * data**2 / 2, k * sample**2 / 2).backward()
    assert k.grad.item() == pytest.approx((data.square().mean() - sample.square().mean()).item() / 2, rel=1e-5)


def test_logistic_losses_by_hand():
    e_data, e_sample = two(0.0, 1.0), two(-1.0)
    expected = (math.log(2) + math.log(1 + math.e)) / 2 + math.log(1 + math.e)
    assert nce(e_data, e_sample).item() == pytest.approx(expected, rel=1e-12)
    assert n2ce(e_data, e_sample, 1.0).item() == pytest.approx(expected, rel=1e-12)
    expected = (math.log(11) + math.log(1 + 10 * math.e)) / 2 + 10 * math.log(1 + math.e / 10)
    assert n2ce(e_data, e_sample, 10.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("magnitude", [1.0, 3.0, 1e4])
def test_logistic_losses_are_least_at_the_log_ratio(magnitude):
    """Of two places the data are 3/4 and 1/4, the samples 1/4 and 3/4: E = log(samples/data) is log 1/3 and log 3."""
    e = two(math.log(1 / 3), math.log(3))
    (at_optimum,) = gradients(n2ce(e[[0, 0, 0, 1]], e[[0, 1, 1, 1]], magnitude), e)
    assert at_optimum == pytest.approx([0, 0], abs=1e-12)
    (elsewhere,) = gradients(n2ce(e[[0, 0, 0, 1]] + 0.1, e[[0, 1, 1, 1]] + 0.1, magnitude), e)
    assert max(map(abs, elsewhere)) > 0.005


def test_more_virtual_noise_tends_to_maximum_likelihood():
    """The gradients are ``1/(1 + exp(-E)/M)`` at data and ``-exp(-E)/(1 + exp(-E)/M)`` at samples: 1 and -exp(-E)."""
    e_data, e_sample = two(0.3, -2.0), two(0.5, -1.0)
    away = []
    for magnitude in (1e2, 1e3):
        found = torch.tensor(gradients(2 * n2ce(e_data, e_sample, magnitude), e_data, e_sample))
        limit = torch.stack([torch.ones(2), -(-e_sample).exp().detach()])
        ratio = (-torch.stack([e_data, e_sample])).exp().detach() / magnitude
        torch.testing.assert_close(found.double(), limit / (1 + ratio), rtol=1e-6, atol=0)
        away.append((found - limit).abs().max().item())
    assert away[0] == pytest.approx(10 * away[1], rel=0.1)


def test_virtual_noise_keeps_its_precision():
    """log M is large, but what the samples give is small differences from it."""
    e = torch.tensor([0.2], requires_grad=True)
    (found,) = torch.autograd.grad(n2ce(torch.zeros(1), e, 1e8), e)
    assert found.item() == pytest.approx(-math.exp(-0.2), rel=1e-5)


def test_hinge_stops_beyond_its_margin():
    e_data, e_sample = two(-3.0, 0.5), two(0.5, 3.0)
    loss = hinge(e_data, e_sample)
    assert loss.item() == pytest.approx((0 + 1.5) / 2 + (0.5 + 0) / 2)
    assert gradients(loss, e_data, e_sample) == [[0.0, 0.5], [-0.5, 0.0]]


def test_gradient_penalties_of_a_quadratic():
    """E = k x^2/2: |grad E|^2 = k^2 x^2, and its derivative in k is 2 k x^2."""
    k, x = two(3.0), torch.tensor([[1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    squares = squared_gradients((k * x.square()).sum(1) / 2, x)
    assert squares.tolist() == pytest.approx([9, 36])
    assert gradients(squares.mean(), k) == [[pytest.approx(2 * 3 * 2.5)]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gamma": 0.0}, -3),
        ({"gamma": 0.1}, -3 + 2.9),
        ({"gamma": 0.0, "loss": "hinge"}, 3),
        ({"gamma": 0.0, "loss": "nce"}, math.log1p(math.exp(2)) + math.log1p(math.exp(-5))),
        (
            {"gamma": 0.0, "loss": "n2ce", "magnitude": 4.0},
            math.log1p(4 * math.exp(2)) + 4 * math.log1p(math.exp(-5) / 4),
        ),
        ({"gamma": 0.0, "r1": 0.5}, -3 + 0.5 * 4),
        ({"gamma": 0.0, "r2": 0.5}, -3 + 0.5 * 25),
    ],
)
def test_a_game_adds_up_its_terms(options, expected):
    """E = 2 at x = 1 of the data and 5 at x = 1 of the samples; the gradients are E."""
    x, slopes = torch.ones(3, 1, dtype=torch.float64), torch.tensor([2.0, 5.0, 5.0], dtype=torch.float64)
    loss, energies = energy_loss(GameConfig(**options), lambda x: slopes * x.squeeze(1), x, 1)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert energies.tolist() == slopes.tolist()


def test_penalties_are_once_a_round_and_as_many_times_as_heavy():
    x, game = torch.ones(2, 1, dtype=torch.float64), GameConfig(gamma=0.0, r1=0.5, energy_steps=3)

    def energy(x):
        return 2 * x.squeeze(1)

    assert energy_loss(game, energy, x, 1, step=0)[0].item() == pytest.approx(3 * 0.5 * 4)
    assert energy_loss(game, energy, x, 1, step=1)[0].item() == 0


def test_penalties_by_differences_are_those_by_gradients_on_average():
    """E = a.x: |a.(h u)|^2/h^2 has the mean |a|^2 whatever the step is; of a curved E it is close."""
    torch.manual_seed(0)
    x = torch.zeros(40000, 2, dtype=torch.float64)
    slope = torch.tensor([3.0, -4.0], dtype=torch.float64)
    flat = squared_differences(lambda x: x @ slope, x @ slope, x)
    assert flat.mean().item() == pytest.approx(25, rel=0.03)

    def curved(x):
        return x.sin().sum(1) + x.square().sum(1)

    at = torch.randn(40000, 2, dtype=torch.float64).requires_grad_()
    exact = squared_gradients(curved(at), at).mean().item()
    assert squared_differences(curved, curved(at), at).mean().item() == pytest.approx(exact, rel=0.03)


def test_a_relativistic_loss_compares_pairs():
    e_data, e_sample = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])
    expected = (math.log1p(math.exp(1)) + math.log1p(math.exp(-5))) / 2
    assert relativistic(e_data, e_sample).item() == pytest.approx(expected, rel=1e-6)
    assert relativistic(e_data, e_sample[:1]).item() == pytest.approx(math.log1p(math.exp(1)), rel=1e-6)


def test_a_penalty_reaches_the_energy_through_the_game():
    """E = k (x - m)^2/2 with k = 1: of R1 alone the loss is mean (x - m)^2, whose gradient in m is -2 mean (x - m)."""
    torch.manual_seed(0)
    energy = Quadratic()
    game = build_game(energy, OneStep(), game=GameConfig(gamma=0.0, r1=1.0), accelerator=Accelerator(cpu=True))
    data = torch.tensor([[1.0], [2.0]])
    log = game.updates[0].learn(data, data, None)  # equal batches: contrastive divergence vanishes
    assert energy.m.grad.item() == pytest.approx(-3)
    assert energy.log_k.grad.item() == pytest.approx(2 * 2.5)  # of k^2 mean (x - m)^2
    assert log["energy_gradient"].item() == pytest.approx(math.hypot(3, 5))
    assert log["energy_size"].item() == pytest.approx((0.5 + 2) / 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"magnitude": 2.0}, "game.magnitude: it is for loss: n2ce"),
        ({"loss": "nce", "magnitude": 1.0}, "game.magnitude: it is for loss: n2ce"),
        ({"loss": "n2ce"}, "game.magnitude: n2ce needs one"),
        ({"loss": "n2ce", "magnitude": 0.5}, "game.magnitude: 0.5"),
        ({"loss": "n2ce", "magnitude": math.nan}, "game.magnitude: nan"),
        ({"r1": -1.0}, "game.r1: -1.0 is negative"),
        ({"r2": -1.0}, "game.r2: -1.0 is negative"),
        ({"start": "chains", "reinit": 1.0}, "game.reinit: 1.0"),
        ({"reinit": 0.1}, "game.reinit: it is for start: chains"),
    ],
)
def test_impossible_losses_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        GameConfig(**options)
