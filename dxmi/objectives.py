"""The formulas of the game (MATH 3) as pure functions: no device, rank, config or optimiser.

Maximum Entropy Inverse RL of Diffusion Models with Energy-Based Models, Yoon et al., NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from dxmi.api import CostToGo, Sampler, Transition


def gcd_loss(e_data: Tensor, e_sample: Tensor, gamma: float = 0.0) -> Tensor:
    """Generalised contrastive divergence, MATH (3.1).

    Energies of data (B,) and of detached samples (B',) -> scalar. ``gamma`` weighs the squared energies.
    """
    regulariser = e_data.square().mean() + e_sample.square().mean()
    return e_data.mean() - e_sample.mean() + gamma * regulariser


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


def mean_square_steps(xs: Tensor) -> Tensor:
    """``mean||x_{t+1}-x_t||^2/D`` of each of T transitions, what MATH (3.5) averages: xs (T+1,B,*S) -> (T,)."""
    return (xs[1:] - xs[:-1]).square().flatten(1).mean(1)


@torch.no_grad()
def walk(
    sampler: Sampler,
    cost_to_go: CostToGo,
    shape: tuple[int, ...],
    generator: Generator | None = None,
    cond: Tensor | None = None,
    start: Tensor | None = None,
) -> Iterator[Tensor]:
    """x_0, ..., x_T of B chains, one state (B,*S) after the other and without gradients; ``start`` is x_0 if given."""
    x = sampler.initial(shape, generator) if start is None else start
    yield x
    for k in range(sampler.steps):
        x = sampler.step(x, torch.full((shape[0],), k, device=x.device), cost_to_go, generator, cond)
        yield x


def rollout(
    sampler: Sampler,
    cost_to_go: CostToGo,
    shape: tuple[int, ...],
    generator: Generator | None = None,
    cond: Tensor | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """One trajectory for each of B chains: shape (B,*S) -> xs (T+1,B,*S), without gradients."""
    return torch.stack(list(walk(sampler, cost_to_go, shape, generator, cond, start)))


def transitions(xs: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(x_t, t, x_{t+1}) of a rollout, from the last step back to ``first``, so that values travel from the energy."""
    for k in reversed(range(first, len(xs) - 1)):
        yield xs[k], torch.full((xs.shape[1],), k, device=xs.device), xs[k + 1]


def random_transitions(xs: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One transition of each chain of a rollout, at a step drawn from first..T-1: (x_t (B,*S), t (B,), x_{t+1} (B,*S)).

    Yields once, or never if there is no such step.
    """
    steps, chains = len(xs) - 1, torch.arange(xs.shape[1], device=xs.device)
    if first < steps:
        t = torch.randint(first, steps, chains.shape, device=xs.device)
        yield xs[t, chains], t, xs[t + 1, chains]
