"""Closed forms of the formulas in MATH 3."""

import math

import pytest
import torch
from small_players import LinearChain

from dxmi.api import Transition
from dxmi.chains import rollout
from dxmi.game.objectives import mean_log_std, mean_square_steps, running_cost, soft_q, time_cost
from dxmi.game.rollouts import transitions


def test_entropy_of_a_step_is_torch_normal_entropy():
    """Conditional entropy per dimension = mean log std + log(2 pi e)/2, for a std that varies over the event."""
    mean, std = torch.randn(5, 3, 2), torch.rand(5, 3, 1) + 0.1
    expected = torch.distributions.Normal(mean, std.expand_as(mean)).entropy().flatten(1).mean(1)
    found = mean_log_std(Transition(mean, std)) + 0.5 * math.log(2 * math.pi * math.e)
    torch.testing.assert_close(found, expected)


def test_running_cost_by_hand():
    """(3.3): tau2/(2 s^2)*||dx||^2/D - tau1*log std with dx = 3 in each of 4 dimensions."""
    x = torch.zeros(2, 4)
    cost = running_cost(x, Transition(x, torch.full((2, 1), 0.5)), x + 3, s2=2.0, tau1=0.1, tau2=0.01)
    torch.testing.assert_close(cost, torch.full((2,), 0.01 / 4 * 9 - 0.1 * math.log(0.5)))


def test_running_cost_is_the_path_kl_of_the_control_problem():
    """E[c] with tau1 = tau2 = tau is tau*KL(pi || N(x, s^2))/D up to constants, as differences show."""
    torch.manual_seed(0)
    x, s2, tau = torch.zeros(200_000, 1), 0.7, 0.3
    costs, kls = [], []
    for mean, std in ((0.4, 0.5), (-1.0, 1.2)):
        step = Transition(torch.full_like(x, mean), torch.full_like(x, std))
        costs.append(running_cost(x, step, step.sample(), s2, tau, tau).mean().item())
        pi, prior = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, s2**0.5)
        kls.append(tau * torch.distributions.kl_divergence(pi, prior).item())
    assert costs[0] - costs[1] == pytest.approx(kls[0] - kls[1], abs=5e-3)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_time_cost_telescopes(steps):
    """The sum over t is sigm(c) - sigm(c - T), c = T//2."""
    total = time_cost(torch.arange(steps), steps).sum().item()
    c = steps // 2
    assert total == pytest.approx(torch.sigmoid(torch.tensor(float(c))) - torch.sigmoid(torch.tensor(float(c - steps))))


def test_soft_bellman_target_of_a_linear_quadratic_chain():
    """E[soft_q] = P x^2/2 + const for J = p x^2/2: P = a^2 p + (a-1)^2 tau2/s^2 (D = 1)."""
    torch.manual_seed(0)
    chain, p, s2, tau1, tau2 = LinearChain(), 2.0, 0.6, 0.3, 0.2
    found = []
    for x0 in (0.0, 1.0):
        x, t = torch.full((400_000, 1), x0), torch.zeros(400_000, dtype=torch.long)
        step = chain(x, t, None)
        found.append(soft_q(lambda y, _: p * y.square().sum(1) / 2, x, t, step, step.sample(), s2, tau1, tau2).mean())
    constant = (p / 2 + tau2 / (2 * s2)) * 0.25 - tau1 * math.log(0.5)
    curvature = 0.64 * p + 0.04 * tau2 / s2
    assert found[0].item() == pytest.approx(constant, rel=0.01)
    assert (found[1] - found[0]).item() == pytest.approx(curvature / 2, rel=0.01)


def test_soft_optimal_policy_of_a_quadratic_value():
    """The Gaussian that minimises E[J + c] has precision p/tau + 1/s^2 and mean x/(1 + p s^2/tau)."""
    p, s2, tau, x0 = 2.0, 0.5, 0.4, 1.5
    mean = torch.zeros((), requires_grad=True)
    log_std = torch.zeros((), requires_grad=True)
    nodes, weights = (part.float() for part in hermite(20))
    optimizer = torch.optim.LBFGS([mean, log_std], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        x = torch.full((len(nodes), 1), x0)
        step = Transition(mean.expand(len(nodes), 1), log_std.exp().expand(len(nodes), 1))
        x_next = step.mean + step.std * nodes[:, None]
        q = soft_q(lambda y, _: p * y.square().sum(1) / 2, x, torch.zeros(len(nodes)), step, x_next, s2, tau, tau)
        loss = (weights * q).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert mean.item() == pytest.approx(x0 / (1 + p * s2 / tau), rel=1e-3)
    assert log_std.exp().item() == pytest.approx((p / tau + 1 / s2) ** -0.5, rel=1e-3)


def test_the_least_control_cost_is_that_of_the_smoothed_energy():
    """TOOLBOX row 30: V_t = -tau*log(exp(-E/tau) * N(0, S)), S = sum s^2, solves soft Bellman, to rounding.

    A step costs tau*(log pi + |dx|^2/(2 s^2) + log(2 pi s^2)/2), which is c_t + tau*(log s - 1/2) where D = 1. For a
    quadratic energy the best law of a step is Gaussian, and any other costs more.
    """
    p, tau, x = 2.0, 0.6, torch.linspace(-2, 2, 5, dtype=torch.float64)
    nodes, weights = hermite(20)

    def value(y, smoothed):
        v = tau / p
        return tau / 2 * (y.square().sum(-1) / (v + smoothed) + math.log((v + smoothed) / v))

    later = 0.0
    for s2 in (0.1, 0.3, 0.8):  # from the last step back
        precision = 1 / (tau / p + later) + 1 / s2
        for widened in (1.0, 1.1):
            start, t = x.repeat_interleave(20)[:, None], torch.zeros(100)
            std = torch.full_like(start, widened * precision**-0.5)
            step = Transition(start / (s2 * precision), std)
            x_next = step.mean + std * nodes.repeat(5)[:, None]
            costs = soft_q(lambda y, _, later=later: value(y, later), start, t, step, x_next, s2, tau, tau)
            total = (costs.view(5, 20) * weights).sum(1) + tau * (math.log(s2) / 2 - 1 / 2)
            if widened == 1:
                torch.testing.assert_close(total, value(x[:, None], later + s2), rtol=0, atol=1e-12)
            else:
                assert (total > value(x[:, None], later + s2) + 1e-3).all()
        later += s2


def hermite(n):
    """Nodes and weights of E over a standard normal."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


def test_rollout_and_its_velocities():
    """mean||x_{t+1} - x_t||^2/D = (a-1)^2 E x_t^2 + std^2, and a rollout holds T+1 states without gradients."""
    chain = LinearChain()
    xs = rollout(chain, None, (100_000, 2), torch.Generator().manual_seed(0))
    assert xs.shape == (4, 100_000, 2) and not xs.requires_grad
    expected, second_moment = [], 1.0
    for _ in range(3):
        expected.append(0.04 * second_moment + 0.25)
        second_moment = 0.64 * second_moment + 0.25
    torch.testing.assert_close(mean_square_steps(xs), torch.tensor(expected), rtol=0.02, atol=0)


def test_transitions_run_backwards_and_join_up():
    xs = torch.arange(4.0)[:, None].expand(4, 5)
    seen = [(x[0].item(), t.tolist(), x_next[0].item()) for x, t, x_next in transitions(xs)]
    assert seen == [(2.0, [2] * 5, 3.0), (1.0, [1] * 5, 2.0), (0.0, [0] * 5, 1.0)]
