"""Products of one-dimensional wells: log Z by quadrature, exact draws by inverse CDF (MATH 5)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Energy, randn


class DoubleWell(Energy):
    """``E(x) = sum_i (x_i^2 - separation^2)^2``: two equal wells a coordinate, so 2^dim modes (MATH 5, MW-5).

    Args:
        dim: number of coordinates
        separation: distance of each well from zero

    Raises:
        ConfigError: an option is not positive
    """

    def __init__(self, dim: int = 5, separation: float = 2.0):
        super().__init__()
        if dim < 1:
            raise ConfigError("dim", f"{dim} is not positive")
        if not (separation > 0 and math.isfinite(separation)):
            raise ConfigError("separation", f"{separation} is not positive and finite")
        self.event_shape = (dim,)
        self.dim, self.separation = dim, separation
        # By symmetry |x| is enough. Beyond these ends its density is below exp(-64) of the largest.
        ends = math.sqrt(max(separation**2 - 8, 0)), math.sqrt(separation**2 + 8)
        self.size = Table(lambda r: (r.square() - separation**2).square(), *ends)
        self.log_z = dim * (math.log(2) + self.size.log_z)
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # where .to() has put this density

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,dim) -> (B,)."""
        return (x.square() - self.separation**2).square().sum(1)

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``4 x_i (x_i^2 - separation^2)``."""
        depth = x.square() - self.separation**2
        return depth.square().sum(1), 4 * x * depth

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N draws (n,dim): sizes by inverse CDF, off by less than 1e-6 in the CDF, and fair signs."""
        u = 2 * uniform((self.dim, n), self.place, generator) - 1
        return self.size(u.abs()).copysign(u).to(self.place).T


class ManyWell(Energy):
    """Pairs (x, v) with ``E = x^4 - 6x^2 - x/2 + v^2/2`` each: two unequal wells in x, a normal v (MATH 5).

    The x are coordinates 0, 2, ..., the v coordinates 1, 3, ...; P(x > 0) = .8443 in every pair.

    Args:
        dim: number of coordinates, twice that of the pairs

    Raises:
        ConfigError: ``dim`` is not a positive even number
    """

    def __init__(self, dim: int = 32):
        super().__init__()
        if dim < 2 or dim % 2:
            raise ConfigError("dim", f"{dim} is not a positive even number")
        self.event_shape, self.pairs = (dim,), dim // 2
        self.well = Table(
            lambda x: x**4 - 6 * x**2 - x / 2, -4, 4
        )  # at the ends below exp(-160) of the largest density
        self.log_z = self.pairs * (self.well.log_z + math.log(2 * math.pi) / 2)
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # where .to() has put this density

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,dim) -> (B,)."""
        w, v = x[:, ::2], x[:, 1::2]
        s = w.square()
        return ((s - 6) * s - w / 2).sum(1) + v.square().sum(1) / 2

    @torch.no_grad()
    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``4x^3 - 12x - 1/2`` and v."""
        g = x.clone()
        w = g[:, ::2]
        w.copy_((4 * w.square() - 12) * w - 0.5)
        return self(x), g

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N draws (n,dim): x by inverse CDF, off by less than 1e-6 in the CDF, and normal v."""
        x = self.well(uniform((self.pairs, n), self.place, generator)).to(self.place)
        v = randn((self.pairs, n), self.place, generator)
        return torch.stack([x, v], 1).flatten(0, 1).T


class Table:
    """The density ``exp(-energy)`` on [low, high], tabulated on 2^14 intervals in float64.

    The trapezoid rule is exact to rounding here, as the density is smooth and vanishes, or has no slope, at both ends.
    """

    def __init__(self, energy: Callable[[Tensor], Tensor], low: float, high: float):
        self.x = torch.linspace(low, high, 2**14 + 1, dtype=torch.float64)
        e = energy(self.x)
        p = (e.min() - e).exp()
        cdf = torch.cat([p.new_zeros(1), (p[1:] + p[:-1]).cumsum(0) / 2])
        self.cdf = cdf / cdf[-1]
        self.log_z: float = math.log(cdf[-1] * (self.x[1] - self.x[0])) - e.min().item()

    def __call__(self, u: Tensor) -> Tensor:
        """The x at which the CDF, linear between the nodes, is u in [0, 1], float64: any shape -> the same."""
        x, cdf = self.x.to(u.device), self.cdf.to(u.device)
        k = torch.searchsorted(cdf, u).clamp(min=1, max=len(cdf) - 1)
        return torch.lerp(x[k - 1], x[k], (u - cdf[k - 1]) / (cdf[k] - cdf[k - 1]))


def uniform(shape: tuple[int, ...], like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), float64, drawn where the generator lives and moved to the device of ``like``."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float64).to(like.device)
