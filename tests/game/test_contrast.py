"""One energy that learns at every node: its gradient in closed form, its memory, and the game it is half of."""

import gc
import weakref
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.policy import GaussianPolicy
from noised_players import LinearAtNodes, Shifts

from dxmi.chains import rollout
from dxmi.config import ClipConfig, GameConfig, LearningConfig, RatesConfig
from dxmi.game.algorithm import build_game
from dxmi.game.contrast import ContrastUpdate
from dxmi.game.contrast_policy import ContrastPolicyUpdate

RATE, BATCH = 0.1, 6
SGD = LearningConfig(
    optimizer="SGD", betas=None, lr=RatesConfig(energy=RATE, sampler=RATE, std=RATE), clip=ClipConfig()
)
PLAIN = {"value": "contrast", "gamma": 0.0, "renoise": 0.0, "tau1": 0.0, "tau2": 0.0, "warmup": 0}


def round_of(game, batch=BATCH, size=2, cond=None):
    """The state of a round before its updates: data, a rollout and s_t^2."""
    state = game.state
    state.data, state.cond, state.J = torch.randn(batch, size) + 1, cond, game.players.cost_to_go(cond)
    state.xs = rollout(game.players.sampler, state.J, (batch, size)).detach()
    state.s2 = torch.tensor([0.5, 0.4, 0.3])
    return state


def linear(**options):
    """A game of a linear energy at each of three nodes, its players, and the state of a round."""
    torch.manual_seed(0)
    sampler = Shifts()
    energy = LinearAtNodes(sampler)
    game = build_game(energy, sampler, None, GameConfig(**PLAIN | options), SGD, Accelerator(cpu=True))
    return game, energy, sampler, round_of(game)


def noised(sampler, data, k):
    """What ``Nodes.noised`` is to give, with the noise that comes next."""
    alpha, sigma = sampler.at_level(sampler.noise_levels[k])
    return alpha * data + sigma * torch.randn_like(data)


def slopes(loss, energy, sampler, state):
    """The gradients in w (T,D) and b (T,) and the gap at each node, by hand."""
    w, b, gaps = [], [], []
    for k in (1, 2, 3):
        x, y = noised(sampler, state.data, k), state.xs[k]
        e_x, e_y = (each @ energy.w[k - 1].detach() + energy.b[k - 1].detach() for each in (x, y))
        up, down = {
            "gcd": (torch.ones(BATCH), torch.ones(BATCH)),
            "nce": (e_x.sigmoid(), (-e_y).sigmoid()),
            "relativistic": ((e_x - e_y).sigmoid(),) * 2,
        }[loss]
        w.append(((up[:, None] * x).mean(0) - (down[:, None] * y).mean(0)) / 3)
        b.append((up.mean() - down.mean()) / 3)
        gaps.append((e_y.mean() - e_x.mean()).item())
    return torch.stack(w), torch.stack(b), gaps


@pytest.mark.parametrize("loss", ["gcd", "nce", "relativistic"])
def test_the_gradient_at_every_node_is_that_of_the_formula(loss):
    """The loss is the mean over nodes, each with its data noised to it against the rollout's states there."""
    game, energy, sampler, state = linear(loss=loss)
    torch.manual_seed(1)
    w, b, gaps = slopes(loss, energy, sampler, state)
    before = energy.w.detach().clone()
    energy.seen.clear()
    torch.manual_seed(1)
    log = ContrastUpdate(game.rollouts.game, game.players)(state)
    torch.testing.assert_close(energy.w.grad, w)
    torch.testing.assert_close(energy.b.grad, b)
    torch.testing.assert_close(energy.w, before - RATE * w)
    assert [log[f"gap_{k}"].item() for k in (1, 2, 3)] == pytest.approx(gaps, abs=1e-6)
    assert log["energy_gradient"].item() == pytest.approx(torch.cat([w.flatten(), b]).norm().item(), rel=1e-5)
    assert log["e_sample"] - log["e_data"] == pytest.approx(gaps[2], abs=1e-6)  # at the end
    assert [t.unique().tolist() for _, t, _ in energy.seen] == [[400], [200], [0]]
    assert sampler.shift.grad is None


def test_the_terms_of_the_energy_loss_count_at_every_node():
    """Of R1 alone at data, where gcd cancels: w_k descends 2*r1*w_k/T. So does gamma, at E = w.x + b."""
    game, energy, sampler, state = linear(r1=0.5)
    state.xs = torch.zeros_like(state.xs)
    torch.manual_seed(1)
    data = torch.stack([noised(sampler, state.data, k) for k in (1, 2, 3)])
    before = energy.w.detach().clone()
    torch.manual_seed(1)
    ContrastUpdate(game.rollouts.game, game.players)(state)
    torch.testing.assert_close(energy.w.grad, (data.mean(1) + 2 * 0.5 * before) / 3)
    game, energy, _, state = linear(gamma=2.0)
    state.xs, state.data = torch.zeros_like(state.xs), torch.zeros_like(state.data)
    ContrastUpdate(game.rollouts.game, game.players)(state)
    assert energy.b.grad[2].item() == pytest.approx(2.0 * (2 * 0.3 + 2 * 0.3) / 3)


def test_the_energy_learns_so_many_times_with_new_noise_each():
    game, energy, sampler, state = linear(energy_steps=3)
    before = energy.w.detach().clone()
    torch.manual_seed(1)
    steps = [slopes("gcd", energy, sampler, state) for _ in range(3)]
    torch.manual_seed(1)
    log = ContrastUpdate(game.rollouts.game, game.players)(state)
    torch.testing.assert_close(energy.w, before - RATE * sum(w for w, _, _ in steps))
    assert not torch.equal(steps[0][0], steps[1][0])
    norms = [torch.cat([w.flatten(), b]).norm() for w, b, _ in steps]
    assert log["energy_gradient"].item() == pytest.approx(torch.stack(norms).mean().item(), rel=1e-5)


def test_conditions_reach_the_energy_beside_data_and_samples():
    game, energy, _, _ = linear()
    state = round_of(game, cond=torch.arange(BATCH))
    energy.seen.clear()
    ContrastUpdate(game.rollouts.game, game.players)(state)
    assert len(energy.seen) == 3
    assert all(cond.tolist() == [*range(BATCH), *range(BATCH)] for _, _, cond in energy.seen)
    ContrastPolicyUpdate(game.rollouts.game, game.players)(state)
    assert all(cond.tolist() == [*range(BATCH)] for _, _, cond in energy.seen[3:]) and len(energy.seen) == 6


def most_kept(play):
    """How many tensors are kept at once for a gradient, at most, while ``play`` runs."""
    alive, most = weakref.WeakSet(), 0

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    def pack(tensor):
        nonlocal most
        kept = Kept(tensor)
        alive.add(kept)
        most = max(most, len(alive))
        return kept

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        play()
    return most


def test_memory_is_that_of_one_node_whatever_the_number_of_steps():
    """Each node's graph is gone before the next one's is made, for energy and sampler."""
    found = {}
    for steps in (2, 8):
        torch.manual_seed(0)
        energy, sampler = MLPEnergy(8, time="noise"), GaussianPolicy([2], steps, width=8)
        energy(torch.zeros(1, 2))
        settings = GameConfig(**PLAIN | {"renoise": 0.5, "noise": 0.1, "tau2": 0.1, "r2": 0.1, "loss": "nce"})
        game = build_game(energy, sampler, None, settings, None, Accelerator(cpu=True))
        state = round_of(game)
        state.s2 = torch.ones(steps)
        updates = ContrastUpdate(settings, game.players), ContrastPolicyUpdate(settings, game.players)
        found[steps] = [most_kept(partial(update, state)) for update in updates]
    assert found[2] == found[8] and min(found[2]) > 10


@pytest.mark.parametrize("node_weights", ["gain", "equal"])
def test_the_samplers_gradient_is_that_of_the_formula(node_weights):
    """(3.4) at every transition: w_{k+1} + tau2/s_k^2*mean(x'-x)/D in the mean, times the transition's weight."""
    game, energy, sampler, state = linear(tau1=0.3, tau2=0.2, node_weights=node_weights)
    weights = {"gain": torch.tensor([0.25, 0.5, 2.0]) / 2.75 * 3, "equal": torch.ones(3)}[node_weights]
    energy.zero_grad()
    before, w = [p.detach().clone() for p in energy.parameters()], energy.w.detach()
    shift, log_std, costs = [], [], 0.0
    torch.manual_seed(1)
    for k in range(3):
        std, s2 = sampler.log_std[k].exp().detach(), state.s2[k]
        moved = std * torch.randn(BATCH, 2)
        shift.append(weights[k] * (w[k] + 0.2 / s2 * moved.mean(0) / 2))
        entropy = (moved @ w[k]).mean() + 0.2 / s2 * moved.square().sum(1).mean() / 2 - 0.3
        log_std.append(weights[k] * entropy)
        cost = ((state.xs[k] + moved) @ w[k]).mean() + 0.3 + 0.2 / (2 * s2) * moved.square().mean() - 0.3 * std.log()
        costs += (weights[k] * cost).item()
    torch.manual_seed(1)
    log = ContrastPolicyUpdate(game.rollouts.game, game.players)(state)
    torch.testing.assert_close(sampler.shift.grad, torch.stack(shift))
    torch.testing.assert_close(sampler.log_std.grad, torch.stack(log_std))
    assert log["policy_loss"].item() == pytest.approx(costs, rel=1e-5)
    norm = torch.cat([*shift, torch.stack(log_std)]).norm().item()
    assert log["policy_gradient"].item() == pytest.approx(norm, rel=1e-5)
    assert all(map(torch.equal, before, energy.parameters()))
    assert all(p.grad is None and p.requires_grad for p in energy.parameters())


def test_terms_are_added_as_they_are_and_what_they_log_is_averaged():
    game, energy, sampler, state = linear()

    def pulls(state, k, x_next):
        return x_next.sum() * (k + 1), {"pull": torch.tensor(float(k))}

    def now_and_then(state, k, x_next):
        return (sampler.log_std.sum(), {"odd": torch.tensor(7.0)}) if k == 1 else None

    with torch.no_grad():
        energy.w.zero_()
    log = ContrastPolicyUpdate(game.rollouts.game, game.players, [pulls, now_and_then])(state)
    assert sampler.shift.grad[:, 0].tolist() == pytest.approx([BATCH, 2 * BATCH, 3 * BATCH])
    assert log["pull"].item() == 1 and log["odd"].item() == 7
    assert {"policy_loss", "policy_gradient"} <= log.keys()


def test_in_the_warm_up_the_energy_alone_learns():
    game, energy, sampler, state = linear(warmup=1)
    w = energy.w.detach().clone()
    game.round(state.data, (BATCH, 2))
    assert not torch.equal(energy.w, w) and not sampler.shift.any()
    log = game.round(state.data, (BATCH, 2))
    assert sampler.shift.all() and log["policy_loss"].isfinite()


MODES = {
    "gaussian": lambda n: 1.5 + 0.5 * torch.randn(n, 1),
    "two modes": lambda n: torch.randint(2, (n, 1)) * 3.0 - 1.5 + 0.3 * torch.randn(n, 1),
}


@pytest.mark.parametrize(("kind", "steps"), [("gaussian", 2), ("two modes", 3)])
def test_a_policy_learns_the_data(kind, steps):
    """From random weights, by the logistic loss, in which the entropy is: mean and std, and the shares of modes."""
    torch.manual_seed(0)
    rounds, batch, draw = 450, 256, MODES[kind]
    energy = MLPEnergy(32, time="noise")
    sampler = GaussianPolicy([1], steps, first=1.0, last=0.05, width=32, depth=2)
    energy(torch.zeros(1, 1))
    settings = GameConfig(**PLAIN | {"loss": "nce", "renoise": 0.5, "r1": 0.02, "r2": 0.02})
    rates = RatesConfig(energy=5e-3, sampler=2e-3, std=1e-2)
    learning = LearningConfig(lr=rates, clip=ClipConfig(sampler=None), decay="cosine", ema=0.98)
    game = build_game(energy, sampler, None, settings, learning, Accelerator(cpu=True), rounds)
    for _ in range(rounds):
        game.round(draw(batch), (batch, 1))
    with torch.no_grad():
        x = rollout(game.players.ema.module, game.players.cost_to_go(), (20_000, 1))[-1]
    wanted = draw(20_000)
    assert x.mean().item() == pytest.approx(wanted.mean().item(), abs=0.15)
    assert x.std().item() == pytest.approx(wanted.std().item(), abs=0.1)
    if kind == "two modes":
        right = x[x > 0]
        assert len(right) / len(x) == pytest.approx(0.5, abs=0.1)
        assert right.mean().item() == pytest.approx(1.5, abs=0.15) and right.std().item() == pytest.approx(0.3, abs=0.1)
