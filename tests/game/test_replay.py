"""What values learn from besides fresh rollouts: kept states, lambda returns, exploration, slow targets (MATH 4)."""

import re

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.energies.known.funnel import Funnel
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.mcmc.mala import MALA
from dxmi_plugins.samplers.vgs import VGS
from small_players import Pushed

from dxmi.api import ConfigError, Cost
from dxmi.chains import rollout
from dxmi.config import GameConfig, LearningConfig, RatesConfig, ReplayConfig
from dxmi.game.algorithm import build_game
from dxmi.game.objectives import lambda_returns, mixing_share
from dxmi.game.replay_buffer import ReplayBuffer
from dxmi.game.value_updates import LambdaReturns, TemporalDifference

NORMAL = {"weights": [1.0], "means": [[0.0]], "covariances": 0.5}


def players(sampler, game=None, replay=None, target=None, **learning):
    torch.manual_seed(0)
    target, value = target or GaussianMixture(**NORMAL), MLPEnergy(32, time=True)
    value(torch.zeros(1, target.event_shape[0]), torch.zeros(1, dtype=torch.long))
    settings = LearningConfig(lr=RatesConfig(value=3e-3, std=1e-2), betas=(0.9, 0.99), **learning)
    return build_game(
        target, sampler, value, game or GameConfig(warmup=0), settings, Accelerator(cpu=True), 100, replay
    )


def test_lambda_returns_by_hand():
    costs, ahead = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[10.0], [20.0], [40.0]])
    assert lambda_returns(costs, ahead, 0.0).flatten().tolist() == [11, 22, 44]
    assert lambda_returns(costs, ahead, 1.0).flatten().tolist() == [47, 46, 44]
    last, middle = 44, 2 + 0.5 * 20 + 0.5 * 44
    assert lambda_returns(costs, ahead, 0.5).flatten().tolist() == [1 + 0.5 * 10 + 0.5 * middle, middle, last]


def test_the_whole_return_of_a_rollout_is_its_cost():
    """TD(1): each chain's value at t is the energy it ends with and what its steps from t on cost."""
    game = players(VGS(4, "ve"), GameConfig(warmup=0, trace=1.0))
    sampler, J = game.players.sampler, game.players.cost_to_go()
    xs = rollout(sampler, J, (5, 1))
    game.state.J, game.state.xs = J, xs
    (learn,) = (update for update in game.updates if isinstance(update, LambdaReturns))
    found = learn.returns(game.state)
    expected = game.players.energy(xs[-1])
    for k in reversed(range(4)):
        t = torch.full((5,), k)
        expected = expected + sampler.running_cost(xs[k], t, sampler(xs[k], t, J)).detach()
        torch.testing.assert_close(found[k], expected)
    assert game.round(None, (16, 1))["value_loss"].isfinite()


@pytest.mark.parametrize("chain", ["ve", "vp"])
def test_the_marginal_is_the_noising_chain_run_from_the_end(chain):
    sampler = VGS(5, chain, first=0.4, last=0.1)
    scale, variance = torch.ones(()), torch.zeros(())
    for k in reversed(range(5)):
        law = sampler.noising(torch.ones(1, 1), torch.tensor([k]))
        scale, variance = scale * law.mean.squeeze(), variance * law.mean.squeeze() ** 2 + law.std.squeeze() ** 2
        alpha, sigma = sampler.marginal(torch.tensor([k]))
        torch.testing.assert_close(alpha.squeeze(), scale)
        torch.testing.assert_close(sigma.squeeze() ** 2, variance)


def test_two_estimates_of_a_gaussians_score_cancel_their_noise():
    """For N(0, v) and noise S the share S/(S+v) of the noise's estimate leaves x/(S+v) without any variance."""
    v, S, t = 0.5, torch.tensor([0.1, 2.0]), torch.arange(2).repeat(500)
    noise = S[t].sqrt()[:, None]
    end = v**0.5 * torch.randn(1000, 3)
    x = end + noise * torch.randn(1000, 3)
    by_noise, by_energy, mean = (x - end) / noise**2, end / v, x / (noise**2 + v)
    _, share = mixing_share(None, t, 2, by_noise, by_energy, mean)
    torch.testing.assert_close(share[:2], S / (S + v))
    mixed = share[:, None] * by_noise + (1 - share[:, None]) * by_energy
    torch.testing.assert_close(mixed, mean, rtol=0, atol=1e-5)


def test_exploration_widens_rollouts_alone():
    sampler = VGS(3, "ve", "constant", first=0.3, start=0.1)
    flat = lambda x, t: x.sum(1) * 0  # noqa: E731
    torch.manual_seed(0)
    wide = rollout(sampler, flat, (20_000, 1), explore=2.0)[-1]
    assert wide.var().item() == pytest.approx(4 * (0.01 + 3 * 0.3), rel=0.04)


def test_targets_come_from_a_slow_value():
    game = players(VGS(3, "ve"), GameConfig(warmup=0, target=0.75))
    name, first = next((n, p.detach().clone()) for n, p in game.players.value.named_parameters())
    for _ in range(2):  # the first round sets the average
        before = dict(game.players.target_value.module.named_parameters())[name].detach().clone()
        game.round(None, (32, 1))
    now = dict(game.players.value.named_parameters())[name]
    slow = dict(game.players.target_value.module.named_parameters())[name]
    assert not torch.equal(first, now)
    torch.testing.assert_close(slow, 0.75 * before + 0.25 * now)
    assert game.players.cost_to_go().value is game.players.target_value.module


def test_targets_have_a_ceiling():
    sampler = VGS(3, "ve")
    game = players(sampler, GameConfig(warmup=0, ceiling=1.5))
    J, (learn,) = game.players.cost_to_go(), (u for u in game.updates if isinstance(u, TemporalDifference))
    x, t = torch.full((4, 1), 9.0), torch.full((4,), 2)
    with torch.no_grad():
        target, step = learn.target.at(J, x, t), sampler(x, t, J)
    torch.testing.assert_close(target, 1.5 + sampler.running_cost(x, t, step))


def test_a_cosine_lowers_the_rates_to_nothing():
    game = players(VGS(3, "ve"), decay="cosine")
    for rounds, share in ((0, 1.0), (50, 0.5), (100, 0.0)):
        game.players.rounds = rounds
        game.players.set_rates()
        assert game.players.optimizers["value"].param_groups[0]["lr"] == pytest.approx(3e-3 * share)
        assert game.players.optimizers["sampler"].param_groups[0]["lr"] == pytest.approx(1e-2 * share)


def test_the_buffer_keeps_the_newest_and_prefers_low_energies():
    torch.manual_seed(0)
    buffer = ReplayBuffer(ReplayConfig(every=1, size=3, priority=1.0), GaussianMixture(**NORMAL))
    buffer.keep(torch.tensor([[9.0], [0.0]]))
    buffer.keep(torch.tensor([[1.0], [0.5]]))
    assert buffer.states.flatten().tolist() == [0.0, 1.0, 0.5]
    drawn, n = buffer.draw(40_000).flatten(), 40_000
    for x, share in zip([0.0, 1.0, 0.5], (-buffer.energies).softmax(0).tolist(), strict=True):
        assert (drawn == x).float().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)


def test_chains_carry_the_samplers_ends_to_the_density():
    torch.manual_seed(0)
    buffer = ReplayBuffer(
        ReplayConfig(every=1, refine=MALA(steps=100, step_size=0.5), size=2000), GaussianMixture(**NORMAL)
    )
    buffer.keep_ends(torch.full((2000, 1), 4.0))
    assert buffer.states.mean().item() == pytest.approx(0, abs=4 * (0.5 / 2000) ** 0.5)
    assert buffer.states.var().item() == pytest.approx(0.5, rel=4 * (2 / 2000) ** 0.5)


def close_to_exact(game, sampler):
    """Whether the gradients of both steps' values are those of N(0, 1/2) noised, x/(sigma_t^2 + 1/2), within 10 %."""
    exact, x = Pushed(game.players.energy, sampler), torch.linspace(-1, 1, 21)[:, None]
    for k in range(2):
        t = torch.full((21,), k)
        learned, closed = (Cost(game.players.energy, v, 2).with_gradient(x, t)[1] for v in (game.players.value, exact))
        assert (learned - closed).norm() / closed.norm() < 0.1


def two_steps():
    return VGS(2, "ve", "constant", first=0.05, drift="posterior", start=0.7)


@pytest.mark.parametrize("options", [{"trace": 0.8}, {"target": 0.8}, {"explore": 1.2}])
def test_values_learned_along_rollouts_have_the_exact_gradient(options):
    sampler = two_steps()
    game = players(sampler, GameConfig(warmup=0, sweep=True, **options), decay="cosine")
    game.players.total = 250
    for _ in range(250):
        game.round(None, (512, 1))
    close_to_exact(game, sampler)


@pytest.mark.parametrize("learn", ["td", "denoise"])
def test_values_learned_from_kept_states_have_the_exact_gradient(learn):
    """No rollout teaches them."""
    sampler = two_steps()
    replay = ReplayConfig(learn=learn, fill=MALA(), size=4000, batch=512, steps=250)
    game = players(sampler, replay=replay, ema=0.5)
    game.buffer.keep(game.players.energy.sample(4000))
    game.updates = [update for update in game.updates if not isinstance(update, TemporalDifference)]
    for _ in range(2):
        game.round(None, (16, 1))
    close_to_exact(game, sampler)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "replay: it stays empty"),
        ({"every": 0}, "replay.every: 0"),
        ({"every": 1, "size": 0}, "replay.size: 0"),
        ({"every": 1, "priority": -1.0}, "replay.priority: -1.0 is negative"),
        ({"every": 1, "learn": "denoise"}, "replay.learn: denoise takes the states for draws"),
        ({"fill": MALA(), "learn": "denoise", "priority": 1.0}, "replay.priority: denoise"),
        ({"fill": MALA(), "refine": MALA()}, "replay.refine: no own ends are kept"),
    ],
)
def test_buffers_that_could_not_work_are_refused(options, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        ReplayConfig(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"explore": 0.0}, "game.explore: 0.0"),
        ({"trace": 1.5}, "game.trace: 1.5"),
        ({"target": 1.0}, "game.target: 1.0"),
        ({"trace": 0.5, "explore": 1.1}, "game.explore: TD(lambda)"),
    ],
)
def test_impossible_games_are_refused(options, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        GameConfig(**options)


def test_states_of_infinite_energy_are_not_kept():
    buffer = ReplayBuffer(ReplayConfig(every=1), Funnel(2))
    buffer.keep(torch.tensor([[0.0, 1.0], [-200.0, 1e3]]))
    assert buffer.states.tolist() == [[0.0, 1.0]]


def test_paths_that_run_away_do_not_stop_what_learns_from_kept_states():
    energy, value = Funnel(2), MLPEnergy(8, time=True)
    value(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    replay = ReplayConfig(learn="denoise", fill=MALA())
    accelerator = Accelerator(cpu=True)
    game = build_game(
        energy, VGS(2, "ve", start=200.0), value, GameConfig(), LearningConfig(), accelerator, replay=replay
    )
    game.buffer.keep(energy.sample(100))
    assert not energy(rollout(game.players.sampler, game.players.cost_to_go(), (100, 2))[-1]).isfinite().all()
    assert all(scalar.isfinite() for scalar in game.round(None, (100, 2)).values())
