"""Energies learned against chains that do not learn (TOOLBOX rows 11-13): maximum likelihood where it is known."""

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from dxmi_plugins.samplers.mcmc.mala import MALA
from torch import nn

from dxmi.algorithm import DxMI
from dxmi.api import ConfigError, Cost, Energy, Sampler
from dxmi.learning import Game, Learning, Rates
from dxmi.objectives import gcd_loss, rollout


class Quadratic(Energy):
    """E = |A x|^2/2, so q = N(0, (A^T A)^-1)."""

    def __init__(self):
        super().__init__()
        self.A = nn.Parameter(torch.eye(2))

    @property
    def precision(self):
        return (self.A.T @ self.A).detach()

    def forward(self, x, t=None, cond=None):
        return (x @ self.A.T).square().sum(1) / 2


def correlated(n):
    """Data whose empirical covariance is [[1, .5], [.5, .8]] to rounding, and its inverse."""
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.8]])
    x = torch.randn(n, 2, dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov(correction=0))).T
    return (x @ torch.linalg.cholesky(covariance.double()).T).float(), torch.linalg.inv(covariance)


def learn(sampler, start, rounds=600):
    torch.manual_seed(0)
    data, precision = correlated(4000)
    energy = Quadratic()
    learning = Learning(lr=Rates(energy=1e-2), betas=(0.0, 0.99))
    game = DxMI(energy, sampler, None, Game(gamma=0.0, start=start, chains=4000), learning, Accelerator(cpu=True))
    for k in range(rounds):
        if k == rounds // 2:
            for group in game.optimizers["energy"].param_groups:
                group["lr"] *= 0.1
        game.round(data[torch.randperm(len(data))[:1000]], (1000, 2))
    return energy, data, precision


def relative_error(energy, precision):
    return ((energy.precision - precision).norm() / precision.norm()).item()


class Shift(Sampler):
    """x_{t+1} = x_t + 1, from 0."""

    steps = 2

    def initial(self, shape, generator=None):
        return torch.zeros(shape)

    def step(self, x, t, cost_to_go, generator=None, cond=None):
        return x + 1


def shifted(start, chains=6):
    return DxMI(Quadratic(), Shift(), None, Game(start=start, chains=chains), Learning(), Accelerator(cpu=True))


def test_chains_start_where_they_are_told_to():
    data = torch.full((4, 2), 10.0)
    ends = {start: shifted(start).play(None, (4, 2), data, None)[-1] for start in ("noise", "data", "chains")}
    assert [ends[start][0, 0].item() for start in ("noise", "data", "chains")] == [2, 12, 2]


def test_persistent_chains_go_on_where_they_ended_also_after_a_checkpoint():
    game = shifted("chains")
    for _ in range(3):
        game.play(None, (6, 2), None, None)
    assert game.chains.equal(torch.full((6, 2), 6.0))
    other = shifted("chains")
    other.load_state_dict({**game.state_dict(), "s2": None})
    assert other.play(None, (4, 2), None, None).equal(torch.full((1, 4, 2), 8.0))
    assert sorted(other.chains[:, 0].tolist()) == [6, 6, 8, 8, 8, 8]
    with pytest.raises(ConfigError, match="game.chains: 6 do not fill a batch of 7"):
        other.play(None, (7, 2), None, None)


def test_the_likelihoods_gradient_vanishes_at_the_inverse_covariance():
    torch.manual_seed(0)
    data, precision = correlated(2000)
    energy = Quadratic()
    model = data[torch.randperm(len(data))]  # any sample with the model's covariance
    with torch.no_grad():
        energy.A.copy_(torch.linalg.cholesky(precision).T)
    gcd_loss(energy(data), energy(model)).backward()
    assert energy.A.grad.abs().max() < 1e-6
    gcd_loss(energy(data), energy(2 * model)).backward()
    assert energy.A.grad.abs().max() > 0.1


@pytest.mark.parametrize("start", ["data", "chains"])
def test_contrastive_divergence_recovers_the_precision(start):
    energy, _, precision = learn(MALA(steps=10, step_size=0.2), start)
    assert relative_error(energy, precision) < 0.02


def test_short_runs_match_the_data_with_as_many_steps_as_in_training_and_not_with_more():
    energy, data, _ = learn(Langevin(steps=10, step_size=0.05), "noise")
    short = rollout(Langevin(steps=10, step_size=0.05), Cost(energy, None, 10), (20_000, 2))[-1]
    assert (short.T.cov() - data.T.cov()).abs().max() < 0.06
    long = Langevin(steps=1000, step_size=0.05)
    drawn = rollout(long, Cost(energy, None, 1000), (2000, 2))[-1]
    assert (drawn.T.cov() - data.T.cov()).abs().max() > 0.15
