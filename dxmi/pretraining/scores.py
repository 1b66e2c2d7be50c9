"""Scores: of energies, in the dialects of denoisers, and how far one is from being a gradient at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dxmi.api import ConfigError, Energy
from dxmi.api.noise import per_row

Score = Callable[[Tensor], Tensor]
"""``s(x (B,*S)) -> (B,*S)``, meant to be ``grad log p(x)``"""


DIALECTS = ("score", "epsilon", "sample", "v_prediction", "flow_prediction")


def convert(output: Tensor, given: str, wanted: str, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """What a network says of ``x = alpha*x0 + sigma*eps`` in one dialect, said in another (MATH 2; TOOLBOX 22, 26).

    =================  =====================  =========================
    score              -eps/sigma             Tweedie's, of the noised density
    epsilon            eps                    the noise
    sample             x0                     the denoised event
    v_prediction       alpha*eps - sigma*x0   velocity on the circle alpha^2 + sigma^2 = 1
    flow_prediction    eps - x0               velocity on the line alpha + sigma = 1
    =================  =====================  =========================

    Args:
        output: the network's output at x (B,*S)
        given: its dialect, as diffusers' ``prediction_type`` calls it, or score
        wanted: the dialect to say it in
        x: the noised events (B,*S)
        alpha: a number or (B,)
        sigma: a number or (B,), positive

    Raises:
        ConfigError: there is no such dialect
    """
    for kind in (given, wanted):
        if kind not in DIALECTS:
            raise ConfigError("prediction_type", f"'{kind}' is none of {', '.join(DIALECTS)}")
    if given == wanted:
        return output
    a, s = broadcast(alpha, x), broadcast(sigma, x)
    if given == "sample":
        clean, eps = output, (x - a * output) / s
    elif given == "v_prediction":
        clean, eps = (a * x - s * output) / (a**2 + s**2), (s * x + a * output) / (a**2 + s**2)
    elif given == "flow_prediction":
        clean, eps = (x - s * output) / (a + s), (x + a * output) / (a + s)
    else:
        eps = -s * output if given == "score" else output
        clean = (x - s * eps) / a
    if wanted == "sample":
        return clean
    if wanted == "v_prediction":
        return a * eps - s * clean
    if wanted == "flow_prediction":
        return eps - clean
    return -eps / s if wanted == "score" else eps


def negative_gradient(energy: Energy, x: Tensor) -> Tensor:
    """An energy's score ``-grad E(x)`` at x (B,*S) -> (B,*S), which itself can be differentiated.

    Raises:
        ConfigError: the energy cannot be differentiated
    """
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        e = energy(x)
        if not e.requires_grad:
            raise ConfigError("energy", f"{type(energy).__name__} has no gradient, so it has no score")
        return vector_jacobian(e, x, -torch.ones_like(e))


def asymmetry(score: Score, x: Tensor, v: Tensor | None = None) -> Tensor:
    """``||J - J^T||/||J||`` of a score's Jacobian over x (B,*S), a scalar; 0 for minus a gradient (TOOLBOX row 21).

    Frobenius norms, summed over the batch before the ratio is taken; between 0 and 2. Exact with D backward passes, or
    with ``score_matching.probes`` v (B,*S) estimated with three, whatever D.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
        x, s = differentiable(score, x)
    if v is None:
        entries = torch.eye(s[0].numel(), dtype=s.dtype, device=s.device).view(-1, *s.shape[1:])
        rows = [vector_jacobian(s, x, one.expand_as(s)).flatten(1) for one in entries]
        jacobian = torch.stack(rows, 1).detach()
        apart, whole = jacobian - jacobian.mT, jacobian
    else:
        u = torch.zeros_like(s, requires_grad=True)
        forward = vector_jacobian(vector_jacobian(s, x, u), u, v).detach()  # J v: J^T u is linear in u
        apart, whole = forward - vector_jacobian(s, x, v).detach(), forward
    ratio: Tensor = apart.norm() / whole.norm().clamp_min(torch.finfo(whole.dtype).tiny)
    return ratio


def differentiable(score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """X (B,*S) that gradients reach, and the score there, (B,*S)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return x, score(x)


def vector_jacobian(out: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """``v^T d out/d x``, shaped like x and differentiable: each row of ``out`` depends on its own row of x."""
    with torch.enable_grad():
        found: tuple[Tensor, ...] = torch.autograd.grad(out, x, v, create_graph=True, materialize_grads=True)
    return found[0]


def broadcast(value: Tensor | float, like: Tensor) -> Tensor:
    """A number or (B,) -> what multiplies like (B,*S)."""
    found = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return found if found.ndim == 0 else per_row(found, like)
