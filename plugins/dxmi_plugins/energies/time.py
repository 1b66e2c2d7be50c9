"""The time argument of value networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dxmi.api import ConfigError


class TimeEmbedding(nn.Module):
    """Sines and cosines of the step, then a linear map: t (B,) integer -> (B,width)."""

    def __init__(self, width: int, frequencies: int = 16):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(-math.log(1e3) * torch.arange(frequencies) / frequencies))
        self.linear = nn.Linear(2 * frequencies, width)

    def forward(self, t: Tensor | None, like: Tensor) -> Tensor:
        """Raises ConfigError without a time: an energy learned with ``time: true`` is a value."""
        if t is None:
            raise ConfigError("this network was built with time: true and needs a time t")
        angles = t.to(like.dtype)[:, None] * self.frequencies
        return self.linear(torch.cat([angles.sin(), angles.cos()], 1))  # type: ignore[no-any-return]
