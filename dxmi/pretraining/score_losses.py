"""Score matching as pure functions (TOOLBOX rows 15-20 and 26): no device, rank, config or optimiser.

A score ``s(x)`` is meant to be ``grad log p(x)``, minus an energy's gradient. Every loss gives one number for each
event, (B,), summed over the event whatever its shape; the objective is the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from dxmi.api import randn
from dxmi.pretraining.scores import Score, broadcast, differentiable, vector_jacobian


def explicit(s: Tensor, target: Tensor) -> Tensor:
    """``||s - s_p||^2/2``: a score and the known one at draws from p, both (B,*S) -> (B,) (TOOLBOX row 15)."""
    return _half_square(s - target)


def implicit(score: Score, x: Tensor) -> Tensor:
    """``||s||^2/2 + tr(grad s)``, the same up to a constant and without s_p: x (B,*S) -> (B,) (row 16).

    Exact, with one backward pass for each of the D entries of an event (Hyvärinen 2005).
    """
    x, s = differentiable(score, x)
    entries = torch.eye(s[0].numel(), dtype=s.dtype, device=s.device).view(-1, *s.shape[1:])
    diagonal = [(vector_jacobian(s, x, one.expand_as(s)) * one).flatten(1).sum(1) for one in entries]
    return _half_square(s) + torch.stack(diagonal).sum(0)


def hutchinson(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """``||s||^2/2 + v.(grad s)v``: the implicit loss with the trace estimated without bias by probes (row 17).

    x and ``probes`` v, both (B,*S) -> (B,). One backward pass, whatever D (sliced score matching with reduced variance,
    Song et al. 2019, arXiv:1905.07088).
    """
    x, s = differentiable(score, x)
    return _half_square(s) + (vector_jacobian(s, x, v) * v).flatten(1).sum(1)


def sliced(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """``(v.s)^2/2 + v.(grad s)v``: x and ``probes`` v, both (B,*S) -> (B,) (Song et al. 2019, (7))."""
    x, s = differentiable(score, x)
    return (v * s).flatten(1).sum(1).square() / 2 + (vector_jacobian(s, x, v) * v).flatten(1).sum(1)


def probes(like: Tensor, kind: Literal["gaussian", "rademacher"], generator: Generator | None = None) -> Tensor:
    """Random vectors with ``E[v v^T] = I``, like (B,*S).

    On a symmetric A, ``v.Av`` has variance ``2*||A||_F^2`` for gaussian ones; rademacher ones, of signs alone, leave
    the diagonal out of that sum.
    """
    v = randn(like.shape, like, generator)
    return v if kind == "gaussian" else 1 - 2 * (v < 0).to(like)


def residual(score: Score, x: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """``||sigma*s(x + sigma*w) + w||^2/2``: sigma^2 times ``denoising``, and finite at every sigma (row 19).

    x and standard normal noise w, both (B,*S), sigma a number or (B,) -> (B,).
    """
    std = broadcast(sigma, x)
    return _half_square(std * score(x + std * noise) + noise)


def denoising(score: Score, x: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """``||s(x~) + (x~ - x)/sigma^2||^2/2`` at ``x~ = x + sigma*w``: x, w (B,*S) -> (B,) (row 18; Vincent 2011).

    Its optimum is the score of the density with that noise added.
    """
    return residual(score, x, noise, sigma) / sigma**2


def multi_noise(
    score: Callable[[Tensor, Tensor], Tensor], x: Tensor, noise: Tensor, sigma: Tensor, power: float = 2.0
) -> Tensor:
    """``sigma^power`` times ``denoising`` of ``score(x, sigma)``, each event at its own sigma (row 20).

    x, w (B,*S), sigma (B,) -> (B,). With power 2 every level counts alike (Song and Ermon 2019).
    """
    return sigma ** (power - 2) * residual(lambda y: score(y, sigma), x, noise, sigma)


def ddpm(
    network: Score,
    prediction_type: Literal["epsilon", "sample", "v_prediction"],
    x0: Tensor,
    noise: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
) -> Tensor:
    """``||output - target||^2`` of a network at ``alpha*x0 + sigma*eps``: (B,) (row 26; Ho et al. 2020).

    The target is what the network predicts there: eps, x0 or ``alpha*eps - sigma*x0``. For eps it is twice the
    multi-noise loss on shrunk data. x0 and eps (B,*S), alpha and sigma a number or (B,).
    """
    a, s = broadcast(alpha, x0), broadcast(sigma, x0)
    target = {"epsilon": noise, "sample": x0, "v_prediction": a * noise - s * x0}[prediction_type]
    return 2 * _half_square(network(a * x0 + s * noise) - target)


def _half_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1) / 2
