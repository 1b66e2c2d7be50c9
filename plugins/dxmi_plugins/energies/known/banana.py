"""The banana: a normal bent along a parabola (TOOLBOX row 9, MATH 5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Energy, randn


class Banana(Energy):
    """``x1 ~ N(0, s^2)``, ``x2 | x1 ~ N(b*(x1^2 - s^2), 1)``, events (2,).

    Its moments are ``E[x1^2] = s^2`` and ``E[x2^2] = 1 + 2 b^2 s^4``.

    Args:
        b: how far it bends; 0 is a normal
        scale: s, the std of x1

    Raises:
        ConfigError: an option is out of its range
    """

    event_shape = (2,)
    log_z = 0.0

    def __init__(self, b: float = 1.0, scale: float = 1.0):
        super().__init__()
        if not math.isfinite(b):
            raise ConfigError("b", f"{b} is not finite")
        if not (scale > 0 and math.isfinite(scale)):
            raise ConfigError("scale", f"{scale} is not positive")
        self.b, self.scale = b, scale
        self.constant = math.log(2 * math.pi * scale)
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # where .to() has put this density

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """Minus the log density: x (B,2) -> (B,)."""
        x1, x2 = x.unbind(1)
        return ((x1 / self.scale) ** 2 + self._residual(x1, x2) ** 2) / 2 + self.constant

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy (B,) and gradient (B,2) in closed form."""
        x1, x2 = x.unbind(1)
        r, z = self._residual(x1, x2), x1 / self.scale
        gradient = torch.stack([z / self.scale - 2 * self.b * x1 * r, r])
        return (z**2 + r**2) / 2 + self.constant, gradient.T

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N independent exact draws (n,2)."""
        eps = randn((2, n), self.place, generator)
        x1 = self.scale * eps[0]
        return torch.stack([x1, self.b * (x1**2 - self.scale**2) + eps[1]]).T

    def _residual(self, x1: Tensor, x2: Tensor) -> Tensor:
        return x2 - self.b * (x1**2 - self.scale**2)
