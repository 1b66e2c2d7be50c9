"""The formulas of the game (MATH 3) as pure functions: no device, rank, config or optimiser.

Maximum Entropy Inverse RL of Diffusion Models with Energy-Based Models, Yoon et al., NeurIPS 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dxmi.api import CostToGo, Transition


def mean_square_step(x: Tensor, x_next: Tensor) -> Tensor:
    """``||x_{t+1} - x_t||^2 / D`` of each of B transitions: two (B,*S) -> (B,)."""
    return (x_next - x).square().flatten(1).mean(1)


def mean_log_std(step: Transition) -> Tensor:
    """``log std`` averaged over the event: (B,). The conditional entropy is this plus log(2 pi e)/2 per dimension."""
    return step.std.log().expand_as(step.mean).flatten(1).mean(1)


def running_cost(x: Tensor, step: Transition, x_next: Tensor, s2: Tensor | float, tau1: float, tau2: float) -> Tensor:
    """``c_t = tau2/(2 s_t^2)*||x_{t+1}-x_t||^2/D - tau1*log std_t``, MATH (3.3): (B,). ``s2`` is s_t^2, a scalar."""
    return tau2 / (2 * s2) * mean_square_step(x, x_next) - tau1 * mean_log_std(step)


def time_cost(t: Tensor, steps: int) -> Tensor:
    """``sigm(c-t) - sigm(c-t-1)`` with ``c = T//2``, MATH 3: the paper's running cost for images. (B,) -> (B,)."""
    c = steps // 2
    return torch.sigmoid(c - t.float()) - torch.sigmoid(c - t.float() - 1)


def soft_q(
    cost_to_go: CostToGo,
    x: Tensor,
    t: Tensor,
    step: Transition,
    x_next: Tensor,
    s2: Tensor | float,
    tau1: float,
    tau2: float,
) -> Tensor:
    """The soft Bellman right-hand side ``J(x_{t+1}, t+1) + c_t``: (B,).

    The value regresses on it (MATH 3.3), the policy descends it (MATH 3.4).
    """
    return cost_to_go(x_next, t + 1) + running_cost(x, step, x_next, s2, tau1, tau2)


def lambda_returns(costs: Tensor, ahead: Tensor, trace: float) -> Tensor:
    """TD(lambda): ``G_t = c_t + (1-lambda)*J(x_{t+1}, t+1) + lambda*G_{t+1}``, the last one ``c + E`` (Sutton 1988).

    Costs c_t and ``ahead`` = J(x_{t+1}, t+1), both (T,B), lambda = trace in [0, 1] -> (T,B). lambda 0 is TD(0), 1 the
    whole rollout's cost.
    """
    returns, later = [], ahead[-1]
    for cost, value in zip(costs.flip(0), ahead.flip(0), strict=True):
        later = cost + (1 - trace) * value + trace * later
        returns.append(later)
    return torch.stack(returns).flip(0)


def mixing_share(
    sums: Tensor | None, t: Tensor, steps: int, first: Tensor, second: Tensor, mean: Tensor, keep: float = 0.99
) -> tuple[Tensor, Tensor]:
    """The share c of the first of two unbiased estimates with which ``c*first + (1-c)*second`` varies least.

    Estimates and their presumed mean (B,*S) at steps t (B,) -> running sums (2,T), to be handed in again, and c (B,) in
    [0, 1]: the regression of ``mean - second`` on ``first - second`` at each step.
    """
    difference, wanted = (first - second).flatten(1), (mean - second).flatten(1)
    now = torch.zeros(2, steps, device=t.device)
    now[0].index_add_(0, t, (difference * wanted).sum(1).float())
    now[1].index_add_(0, t, difference.square().sum(1).float())
    sums = now if sums is None else keep * sums + (1 - keep) * now
    share = (sums[0] / sums[1].clamp(min=torch.finfo(torch.float32).tiny)).clamp(0, 1)
    return sums, share[t].to(first)


def mean_square_steps(xs: Tensor) -> Tensor:
    """``mean||x_{t+1}-x_t||^2/D`` of each of T transitions, what MATH (3.5) averages: xs (T+1,B,*S) -> (T,)."""
    return (xs[1:] - xs[:-1]).square().flatten(1).mean(1)
