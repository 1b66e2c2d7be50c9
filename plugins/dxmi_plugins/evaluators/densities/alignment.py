"""Distances between configurations of identical particles, whatever their place, orientation and order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

EXACT = 5  # particles up to which all orders are tried
TURNS = 8  # random orientations that the search for more particles starts from, beside two others
ROUNDS = 20  # of that search at most; it has usually settled after five
PAIRS = 20_000  # at a time, so that memory stays small


def aligned_costs(x: Tensor, y: Tensor) -> Tensor:
    """``min |x - y R|^2`` of each x (N,n,d) with each y (M,n,d), d of 1 to 3: (N,M), float64.

    The minimum is over rotations and reflections R, translations and orders of the particles. It is exact for up to 5
    particles; for more it is the least that alternating between the best R and the best order finds from several
    starts, so an upper bound, and never above the squared distance of centred x and y themselves.
    """
    x, y = (centred(part.double()) for part in (x, y))
    search = x.shape[1] > EXACT
    overlap = found_overlaps if search else plane_overlaps if flat(x) and flat(y) else largest_overlaps
    rows = max(1, PAIRS // len(y))
    best = torch.cat([overlap(part, y) for part in torch.split(x, rows)])
    squares = x.square().sum((1, 2))[:, None] + y.square().sum((1, 2))
    return (squares - 2 * best).clamp(min=0)


def centred(x: Tensor) -> Tensor:
    """X (N,n,d) less its centre of mass, with coordinates that are zero up to d = 3."""
    padded = x.new_zeros(*x.shape[:2], 3)
    padded[:, :, : x.shape[2]] = x - x.mean(1, keepdim=True)
    return padded


def largest_overlaps(x: Tensor, y: Tensor) -> Tensor:
    """Over all orders, the largest nuclear norm of ``x^T y``, which is the largest ``tr(x^T y R)``: (N,M)."""
    best = x.new_zeros(len(x), len(y))
    for order in permutations(range(x.shape[1])):
        best = torch.maximum(best, nuclear(torch.einsum("aik,bil->abkl", x, y[:, list(order)])))
    return best


def plane_overlaps(x: Tensor, y: Tensor) -> Tensor:
    """The same where the third coordinates are zero, with the plane's points as complex numbers.

    The best turn gives ``|x . y|``, the best with a reflection ``|x . y*|``.
    """
    p, q = (torch.view_as_complex(part[:, :, :2].contiguous()) for part in (x, y))
    best = x.new_zeros(len(x), len(y))
    for order in permutations(range(x.shape[1])):
        moved = q[:, list(order)].mT
        for product in (p @ moved, p @ moved.conj()):
            best = torch.maximum(best, torch.view_as_real(product).square().sum(-1))
    return best.sqrt()


def flat(x: Tensor) -> bool:
    """Whether the particles x (N,n,3) lie in the plane of the first two coordinates."""
    return not x[:, :, 2].any()


def found_overlaps(x: Tensor, y: Tensor) -> Tensor:
    """The same by search, (N,M)."""
    pairs = x.repeat_interleave(len(y), 0), y.repeat(len(x), 1, 1)
    best = pairs[0].new_zeros(len(pairs[0]))
    for order in starts(*pairs):
        best = torch.maximum(best, climb(*pairs, order))
    return best.reshape(len(x), len(y))


def starts(x: Tensor, y: Tensor) -> list[Tensor]:
    """Orders (P,n) of the particles of y to begin with, for pairs x, y (P,n,3).

    Those are the best where both lie, where y is turned at random, and by each particle's distances to the others.
    """
    generator = Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(TURNS, 3, 3, generator=generator, dtype=x.dtype))[0]
    likeness = [x @ turn @ y.mT for turn in (torch.eye(3, dtype=x.dtype), *turns)]
    own, other = (torch.cdist(part, part).sort(2)[0] for part in (x, y))
    return [assigned(score) for score in (*likeness, -torch.cdist(own, other).square())]


def climb(x: Tensor, y: Tensor, order: Tensor) -> Tensor:
    """``tr(x^T y R)`` (P,) of pairs x, y (P,n,3) from an order (P,n) on, with R and order improved in turns."""
    best, left = x.new_zeros(len(x)), torch.arange(len(x))
    for _ in range(ROUNDS):
        m = x[left].mT @ y[left].gather(1, order[:, :, None].expand(-1, -1, 3))
        norm = nuclear(m)
        better = norm > best[left] * (1 + 1e-12)
        best[left] = torch.maximum(best[left], norm)
        left, m = left[better], m[better]
        if not len(left):
            break
        order = assigned(x[left] @ polar(m) @ y[left].mT)
    return best


def assigned(score: Tensor) -> Tensor:
    """The order (P,n) with the largest sum of scores (P,n,n)."""
    return torch.from_numpy(np.stack([linear_sum_assignment(s, maximize=True)[1] for s in score.numpy()]))


def nuclear(m: Tensor) -> Tensor:
    """The sum of the singular values a, b, c of m (...,3,3), the largest ``tr(m R)``.

    It solves ``s^2 = |m|^2 + 2 e`` with ``e = ab + bc + ca`` and ``e^2 = |cofactors|^2 + 2 |det| s``, by a fixed point
    whose error shrinks nine times a round or faster. With a zero coordinate the first round is exact.
    """
    return invariants(m)[0]


def invariants(m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``s`` and ``e`` of ``nuclear`` (...), the cofactors of m (...,3,3) and the determinant (...)."""
    cofactors = torch.linalg.cross(m[..., [1, 2, 0], :], m[..., [2, 0, 1], :])
    det = (m[..., 0, :] * cofactors[..., 0, :]).sum(-1)
    f, c = (part.square().sum((-2, -1)) for part in (m, cofactors))
    s = (3 * f).sqrt()
    for _ in range(16):
        e = (c + 2 * det.abs() * s).sqrt()
        s = (f + 2 * e).sqrt()
    return s, e, cofactors, det


def polar(m: Tensor) -> Tensor:
    """The orthogonal R^T with the largest ``tr(m R)``, (...,3,3): the gradient of ``nuclear``."""
    s, e, cofactors, det = (part if part.ndim == m.ndim else part[..., None, None] for part in invariants(m))
    f = m.square().sum((-2, -1), keepdim=True)
    e = e.clamp(min=1e-12 * f)  # on a line there is nothing to turn but rounding
    turn = m * f - m @ m.mT @ m + s * det.sign() * cofactors
    return (m + turn / e) / (s - det.abs() / e)
