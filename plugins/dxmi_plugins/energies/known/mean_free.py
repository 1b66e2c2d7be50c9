"""Particles with their centre of mass at zero (MATH 4, particle systems)."""

from __future__ import annotations

from typing import cast

import torch
from scipy.linalg import helmert
from torch import Tensor

from dxmi.api import ConfigError, Energy, Particles, StoredDraws


class MeanFree(Energy):
    """An energy of n particles on configurations with centre of mass zero: ``E(H z)``, an energy of z (n-1,d).

    The columns of H, the Helmert basis (Helmert 1876), are orthonormal and sum to zero, so lengths, volumes and normal
    noise in z are those of the mean-free x.

    Args:
        energy: plugin, a known density of events (n,d), n particles in d dimensions, or (n,), n numbers

    Raises:
        ConfigError: its events are no such particles, or n is less than 2
    """

    basis: Tensor
    """H (n,n-1)"""

    def __init__(self, energy: Energy):
        super().__init__()
        shape = energy.event_shape
        if shape is None or len(shape) not in (1, 2) or shape[0] < 2:
            raise ConfigError("energy", f"events of shape {shape} are not particles (n,d) with n of 2 or more")
        self.energy = energy
        self.event_shape = (shape[0] - 1, *shape[1:])
        self.log_z = energy.log_z_mean_free
        self.register_buffer("basis", mean_free_basis(shape[0]), persistent=False)
        if isinstance(energy, Particles):
            self.positions = self._positions
        if isinstance(energy, StoredDraws):
            self.reference = self._reference

    def embed(self, z: Tensor) -> Tensor:
        """Coordinates z (B,n-1,...) -> particles ``x = H z`` (B,n,...) with centre of mass zero."""
        return _times(self.basis, z)

    def project(self, x: Tensor) -> Tensor:
        """Particles x (B,n,...) -> ``z = H^T x`` (B,n-1,...): ``embed`` of it is x less its centre of mass."""
        return _times(self.basis.T, x)

    def _positions(self, x: Tensor) -> Tensor:
        """Z (B,n-1,d) -> the particles (B,n,d)."""
        return cast(Particles, self.energy).positions(self.embed(x))

    def _reference(self) -> Tensor:
        """The energy's own stored samples as coordinates (B,n-1,...)."""
        return self.project(cast(StoredDraws, self.energy).reference().to(self.basis.device))

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """Z (B,n-1,...) -> (B,)."""
        return self.energy(self.embed(x), t, cond)  # type: ignore[no-any-return]

    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``H^T`` times the energy's own gradient."""
        e, g = self.energy.with_gradient(self.embed(x), t, cond)
        return e, self.project(g)


def mean_free_basis(n: int) -> Tensor:
    """H (n,n-1), float64: what scipy's Helmert matrix has as rows."""
    return torch.from_numpy(helmert(n)).T


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix (m,n) times each of x (B,n,...) -> (B,m,...), along the memory of chains."""
    rows = x.movedim(0, -1)
    return (matrix.to(x) @ rows.flatten(1)).reshape(-1, *rows.shape[1:]).movedim(-1, 0)
