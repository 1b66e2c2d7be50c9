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
from dxmi.scores import Score, broadcast, differentiable, vector_jacobian


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
    score: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    noise: Tensor,
    sigma: Tensor,
    weight: Callable[[Tensor], Tensor] = torch.square,
) -> Tensor:
    """``weight(sigma)`` times ``denoising`` of ``score(x, sigma)``, each event at its own sigma (row 20).

    x, w (B,*S), sigma (B,) -> (B,). The default weight sigma^2 makes every level count alike (Song and Ermon 2019).
    """
    return weight(sigma) / sigma**2 * residual(lambda y: score(y, sigma), x, noise, sigma)


def ddpm(score: Score, x0: Tensor, noise: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """``||eps_hat - eps||^2`` with ``eps_hat = -sigma*s`` at ``alpha*x0 + sigma*eps``: (B,) (row 26; Ho et al. 2020).

    Twice the multi-noise loss with weight sigma^2 on shrunk data. x0 and eps (B,*S), alpha and sigma a number or (B,).
    """
    return 2 * residual(score, broadcast(alpha, x0) * x0, noise, sigma)


def _half_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1) / 2
