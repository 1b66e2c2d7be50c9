"""What an energy descends, as pure functions of energies: e_data (B,) of data, e_sample (B',) of detached samples.

The logistic losses and the hinge take the energy for a classifier: at their optimum it is the log ratio of the
samples' density to that of the data, and not the energy of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from dxmi.config import GameConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def gcd(e_data: Tensor, e_sample: Tensor) -> Tensor:
    """Generalised contrastive divergence, MATH (3.1), and the gradient of maximum likelihood: a scalar."""
    return e_data.mean() - e_sample.mean()


def nce(e_data: Tensor, e_sample: Tensor) -> Tensor:
    """Noise contrastive estimation (Gutmann and Hyvärinen 2010), the logistic loss with logit -E: a scalar."""
    return softplus(e_data).mean() + softplus(-e_sample).mean()


def n2ce(e_data: Tensor, e_sample: Tensor, magnitude: float) -> Tensor:
    """Noisier NCE (Yu et al. 2026, arXiv 2405.16730): ``nce`` as if there were ``magnitude`` times the samples.

    As that grows, the gradient becomes ``mean grad E_data - mean exp(-E_sample) grad E_sample``: maximum likelihood
    with importance weights. A scalar.
    """
    shift = math.log(magnitude)
    return softplus(e_data + shift).mean() + magnitude * softplus(-e_sample - shift).mean()


def hinge(e_data: Tensor, e_sample: Tensor) -> Tensor:
    """``mean max(0, 1 + E_data) + mean max(0, 1 - E_sample)`` (Lim and Ye 2017): a scalar."""
    return relu(1 + e_data).mean() + relu(1 - e_sample).mean()


def squared(e_data: Tensor, e_sample: Tensor) -> Tensor:
    """The regulariser that ``gamma`` weighs in MATH (3.1): a scalar."""
    return e_data.square().mean() + e_sample.square().mean()


def squared_gradients(energies: Tensor, x: Tensor) -> Tensor:
    """``|grad E(x)|^2`` of energies (B,) at x (B,*S), differentiable: (B,).

    Its mean over data is the penalty R1, over samples R2 (Mescheder, Geiger and Nowozin 2018).
    """
    (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def penalised(game: GameConfig) -> bool:
    """Whether the energy's loss needs its gradients with respect to its inputs."""
    return game.r1 > 0 or game.r2 > 0


def energy_loss(game: GameConfig, energies: Tensor, x: Tensor, data: int) -> Tensor:
    """The loss that ``game`` names with its regularisers: energies (B+B',) at x, the first ``data`` of data. A scalar.

    With gradient penalties x (B+B',*S) requires its gradient.
    """
    e_data, e_sample = energies[:data], energies[data:]
    noisier = partial(n2ce, magnitude=game.magnitude or 1.0)
    losses: dict[str, Loss] = {"gcd": gcd, "nce": nce, "n2ce": noisier, "hinge": hinge}
    loss = losses[game.loss](e_data, e_sample)
    if game.gamma:
        loss = loss + game.gamma * squared(e_data, e_sample)
    if penalised(game):
        squares = squared_gradients(energies, x)
        loss = loss + game.r1 * squares[:data].mean() + game.r2 * squares[data:].mean()
    return loss
