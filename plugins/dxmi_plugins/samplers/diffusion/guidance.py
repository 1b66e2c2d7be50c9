"""Classifier-free guidance of a teacher (Ho and Salimans 2022, arXiv:2207.12598), and the distance to it."""

from __future__ import annotations

from torch import Tensor, nn

from dxmi.api import NetworkCall, Schedule
from dxmi.api.noise import per_row


def guided(call: NetworkCall, scale: float, null: Tensor) -> NetworkCall:
    """``out_null + scale*(out_cond - out_null)``, two calls of the network, as pipelines have it.

    Clean images are affine in the output, so theirs are mixed by the same formula.

    Args:
        call: how the network is called
        scale: 1 for the condition alone
        null: the condition (1,...) that tells nothing
    """

    def called(network: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
        assert cond is not None
        without = call(network, x, timestep, null.to(cond).expand_as(cond))
        return without + scale * (call(network, x, timestep, cond) - without)

    return called


def distance(schedule: Schedule, output: Tensor, wanted: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Mean of ``max(SNR, 1) * |x0hat - x0hat_wanted|^2`` at x_t (B,*S), a scalar (Meng et al. 2023, arXiv:2210.03142).

    Truncated at 1, the weight (Salimans and Ho 2022) does not vanish where there is nearly noise alone, as it does in a
    distance between predictions of epsilon: the first of few steps has to be right too.
    """
    alpha, sigma = (per_row(part.to(x), x) for part in schedule.level(t))
    mine, theirs = (schedule.x0hat(out, x, alpha, sigma) for out in (output, wanted))
    return ((alpha / sigma).square().clamp_min(1) * (mine - theirs).square()).mean()
