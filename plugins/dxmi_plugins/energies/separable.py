"""A value that is a sum over coordinates, as that of independent coordinates is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from dxmi.api import ConfigError, Energy
from dxmi_plugins.energies.layers import Scales, TimeEmbedding


class Separable(Energy):
    """``p_t*||x||^2 + sum_i g_i(x_i, t)``: one small perceptron g for all coordinates, told which one it sees.

    It starts as the Gaussian N(0, start^2 I): g returns 0 until it learns.

    For densities whose coordinates are independent or nearly so: it learns them all at once, and one second derivative
    gives the diagonal of its Hessian. In a list with another network it takes the marginals off that one's hands.

    Args:
        shape: S of the events
        steps: T of the sampler
        start: std of the sampler's start
        finest: the smallest length that matters, about the noise of the sampler's last step
        width: units of its two hidden layers

    Raises:
        ConfigError: an option is not positive
    """

    def __init__(self, shape: list[int], steps: int, start: float = 1.0, finest: float = 0.1, width: int = 32):
        super().__init__()
        if not shape or min(shape) < 1:
            raise ConfigError("shape", f"{shape} is not a list of positive numbers")
        if steps < 1 or width < 1:
            raise ConfigError("steps", f"{steps} and width: {width} have to be at least 1")
        self.event_shape = tuple(shape)
        self.log_precision = nn.Parameter(torch.full((steps,), -math.log(2 * start**2)))
        self.scales = Scales(steps, start, finest)
        self.stem = nn.Linear(2, width)
        self.coordinate = nn.Parameter(0.3 * torch.randn(math.prod(shape), width))
        self.time = TimeEmbedding(width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T-1 -> (B,)."""
        if t is None:
            raise ConfigError("separable", "it is a value and needs a time t")
        h = silu(self.stem(self.scales(x.flatten(1), t)) + self.coordinate + self.time(t, x)[:, None])
        prior = self.log_precision[t].exp() * x.square().flatten(1).sum(1)
        value: Tensor = prior + self.head(silu(self.hidden(h))).sum((1, 2))
        return value
