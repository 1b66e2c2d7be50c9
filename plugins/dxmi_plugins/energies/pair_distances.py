"""A value network of particles that sees their distances alone (MATH 4, particle systems)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dxmi.api import ConfigError, Energy

from .known.mean_free import mean_free_basis
from .known.particles import incidence
from .mlp import MLPEnergy


class PairDistances(Energy):
    """A perceptron with time on all distances d_ij of n particles, the largest first, as ``sqrt(d_ij^2 + 1)``.

    It does not change under rotations, reflections, translations and permutations of the particles, so its gradient is
    an equivariant drift (PEERS II, invariant wrapper). It returns 0 until it learns. Its gradient jumps where two
    distances change places.

    Args:
        particles: n
        dimensions: d of the space they live in
        mean_free: whether events are the coordinates (n-1,d) of ``mean_free`` or the particles (n,d) themselves
        inverse: whether it sees ``1/sqrt(d_ij^2 + 1)``, which tells near pairs apart rather than far ones
        width: units of a hidden layer
        depth: number of hidden layers

    Raises:
        ConfigError: there are fewer than two particles, or no dimensions, or the perceptron refuses its sizes
    """

    differences: Tensor
    """(n(n-1)/2, n-1 or n): times an event it is ``x_i - x_j`` of all pairs"""

    def __init__(
        self,
        particles: int,
        dimensions: int,
        mean_free: bool = True,
        inverse: bool = False,
        width: int = 128,
        depth: int = 3,
    ):
        super().__init__()
        if particles < 2:
            raise ConfigError("particles", f"{particles} is less than 2")
        if dimensions < 1:
            raise ConfigError("dimensions", f"{dimensions} is not positive")
        self.event_shape = (particles - mean_free, dimensions)
        self.inverse = inverse
        pairs = incidence(particles).double()
        self.register_buffer(
            "differences", pairs @ mean_free_basis(particles) if mean_free else pairs, persistent=False
        )
        self.mlp = MLPEnergy(width, depth, time=True)
        self.mlp(torch.zeros(1, len(pairs)), torch.zeros(1, dtype=torch.long))  # it reads its size
        for p in self.mlp.body[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,n-1,d) or (B,n,d), t (B,) integer -> (B,).

        Raises:
            ConfigError: events of another shape, or no time
        """
        if x.shape[1:] != self.event_shape:
            found, due = tuple(x.shape[1:]), self.event_shape
            raise ConfigError(
                f"event shape {found} are not particles as particles, dimensions, mean_free say", f"{due}"
            )
        return self.mlp(self.features(x), t)  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> Tensor:
        """What the perceptron sees of events (B,*S): (B,n(n-1)/2).

        Functions of d^2, not d, so that two particles at one point have a gradient.
        """
        rows = x.movedim(0, -1)  # the memory of chains: whole vectors of them
        difference = (self.differences.to(x) @ rows.flatten(1)).reshape(-1, *rows.shape[1:])
        squares = difference.square().sum(1).T.sort(1, descending=True).values + 1
        return squares.rsqrt() if self.inverse else squares.sqrt()
