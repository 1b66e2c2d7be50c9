"""The game itself, where its equilibrium and its values are known."""

import math

import pytest
import torch
from accelerate import Accelerator
from small_players import LinearChain, OneStep, Quadratic
from torch import nn

from dxmi.api import ConfigError, Energy
from dxmi.chains import rollout
from dxmi.config import ClipConfig, GameConfig, LearningConfig, RatesConfig
from dxmi.game.algorithm import build_game
from dxmi.game.players import frozen
from dxmi.game.sampler_updates import PolicyUpdate


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


class QuadraticValue(Energy):
    """V_t(x) = P_t x^2/2 + c_t, the form of a linear-quadratic chain's values."""

    def __init__(self, steps):
        super().__init__()
        self.p, self.c = nn.Parameter(torch.zeros(steps)), nn.Parameter(torch.zeros(steps))

    def forward(self, x, t=None, cond=None):
        return self.p[t] * x.square().sum(1) / 2 + self.c[t]


class KnownQuadratic(Energy):
    """E = k x^2/2, nothing to learn."""

    event_shape = (1,)

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x, t=None, cond=None):
        return self.k * x.square().sum(1) / 2


def test_equilibrium_on_a_gaussian(accelerator):
    """p = q = pi for p = N(1, .5^2) (TOOLBOX row 34); the second halves of the paths are averaged."""
    torch.manual_seed(0)
    energy, sampler = Quadratic(), OneStep()
    rates = RatesConfig(energy=1e-2, sampler=1e-2, std=1e-2)
    game = build_game(
        energy,
        sampler,
        game=GameConfig(tau1=1.0, tau2=0.0, gamma=0.0, time_cost=None, warmup=0),
        learning=LearningConfig(lr=rates, clip=ClipConfig()),
        accelerator=accelerator,
    )
    path = []
    for _ in range(2000):
        game.round(1 + 0.5 * torch.randn(256, 1), (256, 1))
        path.append(
            [energy.m.item(), (-energy.log_k / 2).exp().item(), sampler.mean.item(), sampler.log_std.exp().item()]
        )
    q_mean, q_std, pi_mean, pi_std = torch.tensor(path[1000:]).mean(0).tolist()
    assert q_mean == pytest.approx(1, abs=0.03) and pi_mean == pytest.approx(1, abs=0.03)
    assert q_std == pytest.approx(0.5, abs=0.03) and pi_std == pytest.approx(0.5, abs=0.03)


def test_values_of_a_linear_quadratic_chain(accelerator):
    """TD on V_t = P_t x^2/2 + c_t ends within 1 % of the recursion (MATH 3.3, D = 1)."""
    torch.manual_seed(0)
    steps, a, std, k, tau1, tau2 = 4, 0.8, 0.5, 2.0, 0.3, 0.2
    chain, value = LinearChain(a, std, steps), QuadraticValue(steps)
    learning = LearningConfig(lr=RatesConfig(value=1e-2), clip=ClipConfig())
    game = build_game(
        KnownQuadratic(k), chain, value, GameConfig(tau1=tau1, tau2=tau2, time_cost=None), learning, accelerator
    )
    s2 = torch.tensor([0.5, 0.4, 0.3, 0.6])
    learn, state = game.updates[2], game.state
    state.J, state.s2 = game.players.cost_to_go(), s2
    for round_ in range(2000):
        for group in game.players.optimizers["value"].param_groups:
            group["lr"] = 2e-2 * (1 - round_ / 2000)
        state.xs = rollout(chain, state.J, (2048, 1))
        learn(state)
    p, c = k, 0.0
    for t in reversed(range(1, steps)):
        c = c + (p + tau2 / s2[t].item()) * std**2 / 2 - tau1 * math.log(std)
        p = a**2 * p + (a - 1) ** 2 * tau2 / s2[t].item()
        assert value.p[t].item() == pytest.approx(p, rel=0.01), t
        assert value.c[t].item() == pytest.approx(c, rel=0.01), t


def test_policy_step_moves_the_policy_alone(accelerator):
    """The energy and value let gradients through to the policy but keep their own weights and gradients."""
    torch.manual_seed(0)
    energy, sampler = Quadratic(), OneStep()
    game = build_game(energy, sampler, accelerator=accelerator, learning=LearningConfig(lr=RatesConfig(sampler=0.1)))
    state = game.state
    state.J, state.s2 = game.players.cost_to_go(), torch.ones(1)
    state.xs = rollout(sampler, state.J, (64, 1))
    before = [p.detach().clone() for p in energy.parameters()]
    PolicyUpdate(GameConfig(), game.players, game.rollouts)(state)
    assert all(torch.equal(a, b) for a, b in zip(before, energy.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in energy.parameters())
    assert sampler.mean.item() != 0


def test_frozen_restores_only_what_was_trainable():
    layer = nn.Linear(1, 1)
    layer.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen(layer):
        assert not layer.weight.requires_grad
        raise KeyError
    assert layer.weight.requires_grad and not layer.bias.requires_grad


def test_warmup_moves_the_energy_alone(accelerator):
    energy, sampler = Quadratic(), OneStep()
    game = build_game(energy, sampler, game=GameConfig(warmup=2), accelerator=accelerator)
    for _ in range(2):
        game.round(torch.ones(8, 1), (8, 1))
    assert sampler.mean.item() == 0 and energy.m.item() != 0
    game.round(torch.ones(8, 1), (8, 1))
    assert sampler.mean.item() != 0


def test_adaptive_velocity(accelerator):
    """(3.5): the first rollout sets s^2, later ones count 1 - avr; the state survives a reload."""
    game = build_game(Quadratic(), OneStep(), game=GameConfig(avr=0.75), accelerator=accelerator)
    velocity = game.updates[1]
    for end, s2 in ((2.0, 4.0), (4.0, 7.0)):
        game.state.xs = torch.tensor([[[0.0]], [[end]]])
        assert velocity(game.state) == {} and game.state.s2.tolist() == [s2]
    other = build_game(Quadratic(), OneStep(), accelerator=accelerator)
    other.load_state_dict(game.state_dict())
    assert torch.equal(other.state.s2, game.state.s2)


@pytest.mark.parametrize(("ramp", "decays"), [(False, [0.5, 0.5, 0.5]), (True, [2 / 11, 3 / 12, 4 / 13])])
def test_average_follows_the_sampler(ramp, decays, accelerator):
    """The first update copies, the next ones move by 1 - ema, which with a ramp is larger at the start."""
    sampler, learning = OneStep(), LearningConfig(ema=0.5, ema_ramp=ramp)
    game = build_game(Quadratic(), sampler, game=GameConfig(warmup=0), learning=learning, accelerator=accelerator)
    game.round(torch.ones(8, 1), (8, 1))
    expected = sampler.mean.item()
    for decay in decays:
        game.round(torch.ones(8, 1), (8, 1))
        expected = decay * expected + (1 - decay) * sampler.mean.item()
        assert game.players.ema.module.mean.item() == pytest.approx(expected)


def test_learning_rates_reach_their_parameters(accelerator):
    lr = RatesConfig(energy=1.0, sampler=2.0, std=3.0, value=4.0)
    game = build_game(
        Quadratic(), OneStep(), QuadraticValue(1), learning=LearningConfig(lr=lr), accelerator=accelerator
    )
    found = {name: sorted(g["lr"] for g in o.param_groups) for name, o in game.players.optimizers.items()}
    assert found == {"energy": [1.0], "value": [4.0], "sampler": [2.0, 3.0]}


@pytest.mark.parametrize(
    ("learning", "key"),
    [(LearningConfig(optimizer="Adamm"), "optimizer"), (LearningConfig(optimizer="SGD"), "betas")],
)
def test_wrong_optimizer_is_refused(learning, key, accelerator):
    with pytest.raises(ConfigError, match=key):
        build_game(Quadratic(), OneStep(), learning=learning, accelerator=accelerator)


def test_another_optimizer_learns(accelerator):
    sampler = OneStep()
    learning = LearningConfig(optimizer="SGD", betas=None)
    game = build_game(Quadratic(), sampler, game=GameConfig(warmup=0), learning=learning, accelerator=accelerator)
    game.round(torch.ones(8, 1), (8, 1))
    assert sampler.log_std.item() != 0


def test_loss_that_is_not_finite_stops_the_run(accelerator):
    game = build_game(Quadratic(), OneStep(), accelerator=accelerator)
    with pytest.raises(FloatingPointError, match="energy: the loss is not finite in round 1"):
        game.round(torch.full((8, 1), math.inf), (8, 1))


@pytest.mark.parametrize("player", ["energy", "sampler"])
def test_a_step_that_is_not_finite_is_not_taken(player, accelerator):
    """sqrt(|p|) is finite at 0 and its derivative is not."""
    energy, sampler = Quadratic(), OneStep()
    game = build_game(energy, sampler, accelerator=accelerator)
    p = energy.m if player == "energy" else sampler.mean
    before = [q.detach().clone() for q in (*energy.parameters(), *sampler.parameters())]
    for loss, what in (((p / 0).sum(), "loss"), (p.abs().sqrt().sum() + 1, "gradient")):
        with pytest.raises(
            FloatingPointError, match=f"{player}: the {what} is not finite in round 1; lower lr.{player}"
        ):
            game.players.descend(player, loss)
    assert all(map(torch.equal, before, (*energy.parameters(), *sampler.parameters())))


def test_a_step_tells_its_gradient_before_it_is_clipped(accelerator):
    sampler = OneStep()
    learning = LearningConfig(lr=RatesConfig(sampler=1.0), optimizer="SGD", betas=None, clip=ClipConfig(sampler=0.1))
    game = build_game(Quadratic(), sampler, learning=learning, accelerator=accelerator)
    assert game.players.descend("sampler", 3 * sampler.mean.sum()).item() == pytest.approx(3)
    assert sampler.mean.item() == pytest.approx(-0.1, rel=1e-4)


def test_noise_hides_small_differences_from_the_energy(accelerator):
    """Data at 1 and samples at 0 are told apart by E = x; under noise of std 100 a batch of 64 does not tell."""

    class Identity(Quadratic):
        def forward(self, x, t=None, cond=None):
            return x.sum(1) * self.m

    found = []
    for noise in (0.0, 100.0):
        torch.manual_seed(0)
        energy = Identity()
        torch.nn.init.ones_(energy.m)
        game = build_game(energy, OneStep(), game=GameConfig(noise=noise), accelerator=accelerator)
        log = game.updates[0].learn(torch.ones(64, 1), torch.zeros(64, 1), None)
        found.append((log["e_data"] - log["e_sample"]).item())
    assert found[0] == pytest.approx(1) and abs(found[1]) > 5
