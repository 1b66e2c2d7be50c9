"""A policy from random weights, Fourier features, and states that are noised data."""

import math

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.policy import GaussianPolicy

from dxmi.api import ConfigError, Cost
from dxmi.chains import rollout
from dxmi.cli.main import main
from dxmi.config import GameConfig, LearningConfig
from dxmi.game.algorithm import build_game


def value():
    network = MLPEnergy(8, time=True)
    network(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    return network


def test_a_policy_that_knows_the_end_follows_the_exact_posterior():
    """With f = c the chain ends in c, and each state on the way is c with the noise that is left (MATH 2.1)."""
    torch.manual_seed(0)
    policy = GaussianPolicy([2], steps=8, scale=1e-3)
    with torch.no_grad():
        policy.body[-1].weight.zero_()
        policy.body[-1].bias.copy_(torch.tensor([1.0, -2.0]))
    n, end = 50_000, torch.tensor([1.0, -2.0])
    start = end + policy.sigma[0] * torch.randn(n, 2)
    xs = rollout(policy, Cost(value(), None, 8), (n, 2), start=start) - end
    for t in range(1, 8):
        left = policy.sigma[t].item()
        assert xs[t].std().item() == pytest.approx(left, rel=4 / math.sqrt(4 * n))
        assert xs[t].mean(0).abs().max() < 4 * left / math.sqrt(n)


def test_noised_states_are_data_with_the_chains_noise():
    torch.manual_seed(0)
    policy = GaussianPolicy([2], steps=4)
    game = build_game(MLPEnergy(8), policy, value(), GameConfig(noised=0.5), LearningConfig(), Accelerator(cpu=True))
    data, xs = torch.full((40_000, 2), 100.0), torch.zeros(5, 40_000, 2)
    state = game.state
    state.J, state.xs, state.data = game.players.cost_to_go(), xs, data
    ((x, t, x_next),) = game.rollouts.transitions(state)
    assert (x[20_000:] == 0).all() and (x_next[20_000:] == 0).all()
    for k in range(4):
        spread = x[:20_000][t[:20_000] == k] - 100
        assert spread.std().item() == pytest.approx(policy.sigma[k].item(), rel=4 / math.sqrt(2 * spread.numel()))
    step = policy(x[:20_000], t[:20_000], state.J)
    z = (x_next[:20_000] - step.mean) / step.std
    assert z.std().item() == pytest.approx(1, rel=4 / math.sqrt(2 * z.numel())) and abs(z.mean()) < 4 / math.sqrt(
        40_000
    )


def ring(n):
    angle = 2 * math.pi * torch.rand(n)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1)


def test_fourier_features_tell_modes_on_a_circle_from_the_circle():
    """Logistic regression of eight points against their ring: a plain perceptron stays at log 2."""
    angle = math.pi / 4 * torch.arange(8)
    points, losses = 2 * torch.stack([angle.cos(), angle.sin()], 1), []
    for frequencies in (0, 32):
        torch.manual_seed(0)
        network = MLPEnergy(64, 3, frequencies=frequencies)
        network(points)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(150):
            near, far = network(points.repeat(16, 1)), network(ring(128))
            loss = torch.nn.functional.softplus(torch.cat([near, -far])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.68 and losses[1] < 0.4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 0}, "depth: 0 is not positive"),
        ({"prior": math.inf}, "prior: inf is not positive and finite"),
        ({"frequencies": 4, "bandwidth": math.inf}, "bandwidth: inf is not positive and finite"),
    ],
)
def test_impossible_perceptrons_are_refused(options, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        MLPEnergy(**options)


def test_with_a_prior_an_energy_starts_as_a_gaussian():
    x = torch.randn(5, 3)
    assert torch.allclose(MLPEnergy(8, prior=2.0)(x), x.square().sum(1) / 8)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"shape": []}, "shape: "), ({"shape": [2], "last": 0.0}, "last: 0.0"), ({"shape": [2], "steps": 0}, "steps: 0")],
)
def test_impossible_policies_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        GaussianPolicy(**options)


CONFIG = """
steps: 4
data: {density: {name: gaussian_mixture, preset: eight_gaussians}, batch_size: 16}
energy: {name: mlp}
value: {name: mlp, time: true}
sampler: {name: policy, shape: [2], steps: 3, frequencies: 4}
game: {noised: 0.5, warmup: 0, time_cost: null}
tracker: null
"""


def test_a_policy_learns_is_saved_and_draws_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)
    assert main(["train", "run.yaml", "--out", "run"]) == 0
    assert main(["sample", "run", "-n", "7", "--out", "drawn.safetensors"]) == 0
    assert (tmp_path / "run" / "picture.png").exists() and (tmp_path / "drawn.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler.shape", "[3]"], "sampler.shape: [3] is not the data's, [2]"),
        (["--game.noised", "1.5"], "game.noised: 1.5 is no share"),
        (["--game.noised", "0.01"], "game.noised: 0.01 of 16 states is none"),
        (["--sampler.frequencies", "-3"], "frequencies: -3 is negative"),
        (
            ["--value", "null", "--game.noised", "0", "--sampler", "smc", "--game.start", "data"],
            "SMC has to start from",
        ),
        (["--sampler", "mala"], "value: a chain that cannot learn follows the energy"),
        (["--sampler", "langevin", "--value", "null"], "game.noised: it is for samplers that learn from data"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, says, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(CONFIG)
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1
