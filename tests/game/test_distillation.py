"""Score distillation against a teacher of Gaussian data, where every step is known (DMD2)."""

import pytest
import torch
from accelerate import Accelerator
from noised_players import Denoiser, KnowsGaussians, LinearAtNodes
from torch import nn

from dxmi.api.noise import per_row
from dxmi.chains import rollout
from dxmi.config import ClipConfig, GameConfig, LearningConfig, RatesConfig
from dxmi.game.algorithm import build_game
from dxmi.game.contrast import Nodes
from dxmi.game.contrast_policy import ContrastPolicyUpdate
from dxmi.game.distillation import ScoreDistillation, ScoreUpdate

BATCH, DISTIL, RATE = 300, 0.4, 0.1
WEIGHTS = torch.tensor([0.25, 0.5, 2.0]) / 2.75 * 3  # of gains 4, 2, .5


def game_of(sampler=None, **options):
    torch.manual_seed(0)
    sampler = sampler or KnowsGaussians()
    settings = {"value": "contrast", "tau1": 0.0, "tau2": 0.0, "warmup": 0, "distil": DISTIL, **options}
    rates = RatesConfig(energy=1e-9, sampler=RATE, std=1e-9, score=RATE)
    learning = LearningConfig(optimizer="SGD", betas=None, lr=rates, clip=ClipConfig(sampler=None))
    game = build_game(LinearAtNodes(sampler), sampler, None, GameConfig(**settings), learning, Accelerator(cpu=True))
    with torch.no_grad():  # so that what moves the sampler is its teacher alone
        game.players.energy.w.zero_()
    return game


def shares(sampler, level, like):
    """How much of an estimate of clean data N(m, .25) is m itself: sigma^2/(alpha^2/4 + sigma^2), (B,1)."""
    alpha, sigma = (per_row(part, like) for part in sampler.at_level(level))
    return sigma**2 / (alpha**2 / 4 + sigma**2)


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("node_weights", ["gain", "equal"])
def test_the_gradient_points_from_the_teachers_estimate_to_the_networks(k, node_weights):
    """The estimates differ by the share times the difference of their means: sign and scale of each entry."""
    game = game_of(node_weights=node_weights)
    players, sampler = game.players, game.players.sampler
    players.score.mean.data.fill_(3.0)  # the teacher's is 1
    x = (torch.randn(BATCH, 2) + 2).requires_grad_()
    torch.manual_seed(1)
    shown, level = Nodes(sampler, renoise=1.0).seen(x.detach(), k + 1)
    torch.manual_seed(1)
    loss, log = ScoreDistillation(game.rollouts.game, players)(game.state, k, x)
    loss.backward()
    alpha, _ = sampler.at_level(sampler.noise_levels[k + 1])
    error = (x.detach() / alpha - sampler.denoised(shown, level)).abs().mean(1, keepdim=True)
    direction = (shares(sampler, level, x) * 2 / error.clamp_min(1e-3)).expand(BATCH, 2)
    weight = DISTIL * (WEIGHTS[k] if node_weights == "gain" else 1)
    torch.testing.assert_close(x.grad, weight * direction / (2 * BATCH))
    assert log["distillation"].item() == pytest.approx(direction.mean().item(), rel=1e-5)
    assert (x.grad > 0).all()  # descent is towards the teacher's mean
    assert players.score.mean.grad is None


def test_there_is_none_where_the_network_agrees_with_the_teacher():
    game = game_of()
    x = torch.randn(BATCH, 2, requires_grad=True)
    loss, log = ScoreDistillation(game.rollouts.game, game.players)(game.state, 0, x)
    loss.backward()
    assert not x.grad.any() and log["distillation"].item() == 0


def test_the_network_learns_to_denoise_the_rounds_samples():
    """The error of the noise, ``alpha/sigma*(x0hat - x)`` with a factor of 20 at most, and its gradient in the mean."""
    game = game_of()
    players, sampler, state = game.players, game.players.sampler, game.state
    state.xs = torch.randn(4, BATCH, 2) + 2
    torch.manual_seed(1)
    shown, level = Nodes(sampler, renoise=1.0).seen(state.xs[-1], 3)
    alpha, sigma = sampler.at_level(level)
    factor = per_row((alpha / sigma).clamp(max=20), shown)
    assert (alpha / sigma > 20).any() and (level > 900).any()
    error = sampler.denoised(shown, level) - state.xs[-1]
    torch.manual_seed(1)
    log = ScoreUpdate(players)(state)
    assert log["score_loss"].item() == pytest.approx((factor * error).square().mean().item(), rel=1e-5)
    slope = (2 * factor**2 * error * shares(sampler, level, shown)).mean(0) / 2
    torch.testing.assert_close(players.score.mean.grad, slope)
    torch.testing.assert_close(players.score.mean.detach(), 1 - RATE * slope)
    assert sampler.shift.grad is None


def test_samples_move_to_the_teachers_and_the_network_follows_them():
    """One step from N(0, I): the sampler ends at the teacher's mean, 1, whatever the energy is."""
    game = game_of(KnowsGaussians(levels=(700.0,), gains=(1.0,)), distil=3.0)
    players, state = game.players, game.state
    terms = [ScoreDistillation(game.rollouts.game, players)]
    learn = ScoreUpdate(players), ContrastPolicyUpdate(game.rollouts.game, players, terms)
    state.s2, state.J, away = torch.ones(1), players.cost_to_go(), []
    players.sampler.shift.data.fill_(-2.0)
    for _ in range(300):
        state.xs = rollout(players.sampler, state.J, (64, 2)).detach()
        for update in learn:
            update(state)
        away.append([players.sampler.shift.mean().item(), players.score.mean.mean().item()])
    shift, mean = torch.tensor(away[-30:]).mean(0).tolist()
    assert shift == pytest.approx(1, abs=0.1) and mean == pytest.approx(1, abs=0.1)
    first, last = away[9]  # after ten rounds the network knows of the samples, which have hardly moved
    assert first < -1.5 and last < 0.5


def test_a_round_has_a_score_network_of_its_own_that_learns_in_the_warm_up_too():
    game = game_of(warmup=1)
    players = game.players
    assert isinstance(players.networks["score"], nn.Module) and isinstance(players.score, Denoiser)
    log = game.round(torch.randn(8, 2) + 5, (8, 2))
    assert log["score_loss"] > 0 and "distillation" not in log and players.score.mean.grad.any()
    log = game.round(torch.randn(8, 2) + 5, (8, 2))
    assert log["distillation"] > 0 and players.sampler.shift.grad.any()
    assert "score" not in game_of(distil=0.0).players.networks
