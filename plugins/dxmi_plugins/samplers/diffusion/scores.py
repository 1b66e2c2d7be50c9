"""What a network takes for the clean data in noised ones, which is to know their score (Tweedie's formula)."""

from __future__ import annotations

from torch import Tensor, nn

from dxmi.api import NetworkCall, Schedule
from dxmi.api.noise import per_row


def clean(
    schedule: Schedule,
    call: NetworkCall,
    network: nn.Module,
    seen: tuple[Tensor, Tensor, Tensor, Tensor],
    cond: Tensor | None,
) -> Tensor:
    """``x0hat`` (B,*S) by a network.

    Args:
        schedule: knows what the network predicts
        call: how the network is called
        network: of the teacher's architecture
        seen: x (B,*S), timestep (B,), alpha (B,) and sigma (B,), where x is ``alpha*x0 + sigma*eps``
        cond: condition (B,...)
    """
    x, timestep, alpha, sigma = seen
    output = call(network, x, timestep, cond)
    return schedule.x0hat(output, x, per_row(alpha.to(x), x), per_row(sigma.to(x), x))


def reach(schedule: Schedule, like: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """How far x0hat moves with the network's output, at ``alpha`` and ``sigma`` (B,): (B,1,...) for like (B,*S).

    ``sigma/alpha`` where it predicts epsilon; at most 1 where it predicts x0, v or a flow.
    """
    alpha, sigma = per_row(alpha.to(like), like), per_row(sigma.to(like), like)
    nothing = alpha.new_zeros(alpha.shape)
    moved = schedule.x0hat(nothing + 1, nothing, alpha, sigma) - schedule.x0hat(nothing, nothing, alpha, sigma)
    return moved.abs()
