"""What an energy descends, as pure functions of energies: e_data (B,) of data, e_sample (B',) of detached samples.

The logistic losses (the relativistic one too) and the hinge take the energy for a classifier: at their optimum it is
the log ratio of the samples' density to that of the data, and not the energy of the data.
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

DIFFERENCE = 0.05
"""step of the differences, in units of the data: below what the energy's own input noise hides"""


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


def relativistic(e_data: Tensor, e_sample: Tensor) -> Tensor:
    """``mean softplus(E_data - E_sample)`` of pairs (Jolicoeur-Martineau 2019; R3GAN, arXiv 2501.05441): a scalar.

    Where there are fewer of the one, as at the end of few data, the rest of the other has no partner.
    """
    pairs = min(len(e_data), len(e_sample))
    return softplus(e_data[:pairs] - e_sample[:pairs]).mean()


def squared(e_data: Tensor, e_sample: Tensor) -> Tensor:
    """The regulariser that ``gamma`` weighs in MATH (3.1): a scalar."""
    return e_data.square().mean() + e_sample.square().mean()


def squared_gradients(energies: Tensor, x: Tensor) -> Tensor:
    """``|grad E(x)|^2`` of energies (B,) at x (B,*S), differentiable: (B,).

    Its mean over data is the penalty R1, over samples R2 (Mescheder, Geiger and Nowozin 2018).
    """
    (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def squared_differences(energy: Callable[[Tensor], Tensor], energies: Tensor, x: Tensor) -> Tensor:
    """``|E(x + h*u) - E(x)|^2/h^2`` with u ~ N(0, I): as h falls, ``squared_gradients`` on average. (B,).

    One more pass through the network in place of its second derivative, which attention on the CPU does not have and
    sharding refuses (adversarial flow models, arXiv 2511.22475). Energies (B,) are those at x (B,*S).
    """
    return ((energy(x + DIFFERENCE * torch.randn_like(x)) - energies) / DIFFERENCE).square()


def energy_loss(
    game: GameConfig, energy: Callable[[Tensor], Tensor], x: Tensor, data: int, step: int = 0
) -> tuple[Tensor, Tensor]:
    """The loss that ``game`` names with its regularisers, a scalar, and the energies (B+B',) that it is of.

    Args:
        game: the loss and the weights of its terms
        energy: ``E(x)``, whose parameters learn
        x: data and samples (B+B',*S); one forward pass over both, so that DDP sees one
        data: how many of them are data, B: the first
        step: which of the round's ``energy_steps`` it is, from 0: gradient penalties are in the first alone, as many
            times as heavy (lazy regularisation, StyleGAN2, arXiv 1912.04958)
    """
    lazy = game.energy_steps if step == 0 else 0
    penalised, differences = lazy * (game.r1 + game.r2) > 0, game.penalties == "differences"
    x = x.detach().requires_grad_(penalised and not differences)
    energies = energy(x)
    e_data, e_sample = energies[:data], energies[data:]
    noisier = partial(n2ce, magnitude=game.magnitude or 1.0)
    losses: dict[str, Loss] = {
        "gcd": gcd,
        "nce": nce,
        "n2ce": noisier,
        "hinge": hinge,
        "relativistic": relativistic,
    }
    loss = losses[game.loss](e_data, e_sample)
    if game.gamma:
        loss = loss + game.gamma * squared(e_data, e_sample)
    if penalised:
        squares = squared_differences(energy, energies, x) if differences else squared_gradients(energies, x)
        loss = loss + lazy * game.r1 * squares[:data].mean() + lazy * game.r2 * squares[data:].mean()
    return loss, energies.detach()
