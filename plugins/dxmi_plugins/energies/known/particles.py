"""Particles with pair energies: DW-4 and Lennard-Jones clusters (MATH 5; Koehler, Klein and Noe 2020)."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dxmi.api import ConfigError, Energy

SOFTENING = 1e-6
"""added to every squared distance, as in the published energies"""


class Particles(Energy):
    """``E(x) = sum_{i<j} u(d_ij)`` of n particles in d dimensions, with ``d_ij^2 = |x_i - x_j|^2 + 1e-6``.

    It does not change under rotations, reflections, permutations and translations, so it is no density on all of space:
    ``mean_free`` makes one of it.

    Args:
        particles: n
        dimensions: d
        file: of stored samples, which ``reference`` gives; None where there are none
    """

    pairs: Tensor

    def __init__(self, particles: int, dimensions: int, file: str | None = None):
        super().__init__()
        self.event_shape = (particles, dimensions)
        if file is not None:
            self.reference = partial(stored_samples, file)
        self.register_buffer("pairs", incidence(particles), persistent=False)

    @abstractmethod
    def pair(self, q: Tensor) -> Tensor:
        """``u`` as a function of the squared distance q: any shape -> the same."""

    @abstractmethod
    def slope(self, q: Tensor) -> Tensor:
        """``du/dq``."""

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,n,d) -> (B,)."""
        return self.pair(self._differences(x)[1]).sum(0)

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``sum_j 2 u'(q_ij) (x_i - x_j)``; zero, not NaN, from a pair at one point."""
        difference, q = self._differences(x)
        slope = self.slope(q)
        limit = torch.finfo(slope.dtype).max
        pull = 2 * difference * slope.clamp_(-limit, limit)[:, None]
        g = self.pairs.T.to(x) @ pull.flatten(1)
        return self.pair(q).sum(0), g.reshape(-1, *pull.shape[1:]).movedim(-1, 0)

    def _differences(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x_i - x_j`` of each of P pairs (P,d,B), and squared distances (P,B)."""
        rows = x.movedim(0, -1)  # the memory of chains: whole vectors of them
        difference = (self.pairs.to(x) @ rows.flatten(1)).reshape(-1, *rows.shape[1:])
        return difference, difference.square().sum(1) + SOFTENING

    def positions(self, x: Tensor) -> Tensor:
        """X (B,n,d) itself."""
        return x


class DW4(Particles):
    """Four particles in the plane, ``E = sum_{i<j} 0.9 (d_ij - 4)^4 - 4 (d_ij - 4)^2`` (MATH 5).

    Distances near 2.5 and 5.5 are favoured. On mean-free configurations, at temperature 1 and by quadrature, the mean
    energy is -22.541, its std 1.905 and log Z 29.66723.
    """

    log_z_mean_free = 29.66723  # the quadrature is in the tests

    def __init__(self) -> None:
        super().__init__(4, 2, file="dw4")

    def pair(self, q: Tensor) -> Tensor:
        """``0.9 (d - 4)^4 - 4 (d - 4)^2``."""
        s = (q.sqrt() - 4).square()
        return s * (0.9 * s - 4)  # one product: a difference of two would be inf - inf far out

    def slope(self, q: Tensor) -> Tensor:
        """``(1.8 (d - 4)^3 - 4 (d - 4)) / d``."""
        d = q.sqrt()
        r = d - 4
        return r * (1.8 * r.square() - 4) / d


class LennardJones(Particles):
    """Particles in space, ``E = sum_{i != j} d_ij^-12 - 2 d_ij^-6 + sum_i |x_i - centre of mass|^2 / 2`` (MATH 5).

    The sum takes every pair twice. Known as LJ-13 and LJ-55. The mean energy of 13 at temperature 1 is -42.9 by long
    chains, -43.1 in MATH 5; its std is 7.0.

    Args:
        particles: their number

    Raises:
        ConfigError: there are fewer than two
    """

    def __init__(self, particles: int = 13):
        if particles < 2:
            raise ConfigError("particles", f"{particles} is less than 2")
        super().__init__(particles, 3, file="lennard_jones_13" if particles == 13 else None)

    def pair(self, q: Tensor) -> Tensor:
        """``2 (d^-12 - 2 d^-6)``."""
        s = q**-3
        return 2 * s * (s - 2)

    def slope(self, q: Tensor) -> Tensor:
        """``12 (d^-8 - d^-14)``."""
        s = q**-3
        return 12 * s * (1 - s) / q

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,n,3) -> (B,)."""
        return super().forward(x) + centred(x).square().sum((1, 2)) / 2

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """That of the pairs, plus ``x_i - centre of mass``."""
        e, g = super().with_gradient(x)
        r = centred(x)
        return e + r.square().sum((1, 2)) / 2, g + r


def stored_samples(file: str) -> Tensor:
    """Samples (n,*S) at temperature 1 with the centre of mass at zero, float32, of the folder ``references``.

    They come from long chains (examples/references/make_references.py) and so are no exact draws; the JSON file beside
    them says how they were made and what was checked.
    """
    from safetensors.torch import load_file

    return load_file(Path(__file__).parent / "references" / f"{file}.safetensors")["samples"]  # type: ignore[no-any-return]


def incidence(n: int) -> Tensor:
    """The signed incidence matrix of all pairs i < j, (n(n-1)/2, n): times x it is ``x_i - x_j``.

    As products with it both differences and their transpose run at the speed of matrix products.
    """
    i, j = torch.triu_indices(n, n, 1)
    identity = torch.eye(n)
    return identity[i] - identity[j]


def centred(x: Tensor) -> Tensor:
    """X (B,n,d) less its centre of mass."""
    return x - x.mean(1, keepdim=True)
