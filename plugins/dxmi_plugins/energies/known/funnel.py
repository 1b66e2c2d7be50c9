"""Neal's funnel: one coordinate sets the scale of all others (Neal 2003, MATH 5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Energy, randn


class Funnel(Energy):
    """``x1 ~ N(0, scale^2)``, the others ``N(0, e^x1)``, events (dim,).

    Args:
        dim: D, at least 2
        scale: std of x1

    Raises:
        ConfigError: an option is out of its range
    """

    log_z = 0.0

    def __init__(self, dim: int = 10, scale: float = 3.0):
        super().__init__()
        if dim < 2:
            raise ConfigError("dim", f"{dim} is too small", "a funnel has at least 2 dimensions")
        if not (scale > 0 and math.isfinite(scale)):
            raise ConfigError("scale", f"{scale} is not positive")
        self.event_shape = (dim,)
        self.dim, self.scale = dim, scale
        self.constant = math.log(scale) + dim / 2 * math.log(2 * math.pi)
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # where .to() has put this density

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """Minus the log density: x (B,D) -> (B,)."""
        first, z = x[:, 0], self._standardised(x)
        return self._energy(first, z.square().sum(0))

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy (B,) and gradient (B,D) in closed form."""
        first, z = x[:, 0], self._standardised(x)
        squares = z.square().sum(0)
        slope = first / self.scale**2 + (self.dim - 1 - squares) / 2
        gradient = torch.cat([slope[None], z * self._scale(first)])
        return self._energy(first, squares), gradient.T

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N independent exact draws (n,D)."""
        eps = randn((self.dim, n), self.place, generator)
        first = self.scale * eps[0]
        return torch.cat([first[None], eps[1:] * torch.exp(first / 2)]).T

    def _standardised(self, x: Tensor) -> Tensor:
        """All but the first coordinate over their std, (D-1,B): squared only then, which overflows later."""
        return x.T[1:] * self._scale(x[:, 0])

    def _scale(self, first: Tensor) -> Tensor:
        """One over their std, (B,), held where its square would overflow: chains that pass there need gradients."""
        return torch.exp(-first.clamp(min=-0.9 * math.log(torch.finfo(first.dtype).max)) / 2)

    def _energy(self, first: Tensor, squares: Tensor) -> Tensor:
        return ((first / self.scale) ** 2 + squares + (self.dim - 1) * first) / 2 + self.constant
