"""Inputs of value networks whose chains go from wide noise to a narrow density."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dxmi.api import ConfigError


class Scales(nn.Module):
    """``x/start`` and ``asinh(x/r_t)``, where r_t goes from ``start`` to ``finest`` geometrically.

    The first shows the state as a whole; the second, a logarithm with a sign, what is much smaller than it. So one
    network sees the wide and the narrow parts of a density alike.
    """

    def __init__(self, steps: int, start: float, finest: float):
        super().__init__()
        if not 0 < finest <= start < math.inf:
            raise ConfigError(f"finest: {finest} is not positive and at most start, {start}")
        self.start = start
        self.range: Tensor
        self.register_buffer("range", torch.logspace(math.log10(start), math.log10(finest), steps), persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """X (B,*S), t (B,) -> (B,*S,2)."""
        fine = self.range[t].view(-1, *[1] * (x.ndim - 1))
        return torch.stack([x / self.start, torch.asinh(x / fine)], -1)
