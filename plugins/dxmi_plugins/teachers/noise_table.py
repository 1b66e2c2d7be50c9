"""A teacher's noise levels as a table: what its network is told at any of them (MATH 3.7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dxmi.api import Levels, noise_level


class NoiseTable(nn.Module):
    """The teacher's N levels by how noisy they are, ``noise_level`` in [0, 1000], with clean data before them.

    Args:
        levels: of the teacher, the cleanest first
    """

    known: Tensor
    """(N+1,) clean data's level, 0, and the teacher's, rising"""
    timesteps: Tensor
    """(N+1,) what the network is told, at clean data as at the cleanest level; long where all are whole"""

    def __init__(self, levels: Levels):
        super().__init__()
        of_levels = noise_level(levels.alphas.double(), levels.sigmas.double())
        self.register_buffer("known", torch.cat([torch.zeros(1), of_levels.float()]), persistent=False)
        timesteps = torch.cat([levels.timesteps[:1], levels.timesteps])
        self.whole = bool((timesteps == timesteps.round()).all())
        timesteps = timesteps.to(torch.int64 if self.whole else torch.float32)
        self.register_buffer("timesteps", timesteps, persistent=False)

    def timestep(self, level: Tensor) -> Tensor:
        """What the network is told at each level (B,): where timesteps are whole, that of the nearest known one."""
        if not self.whole:
            return self.between(self.timesteps, level)
        place = self.between(torch.arange(len(self.known)), level).round().long()
        return self.timesteps.to(level.device)[place]

    def between(self, values: Tensor, level: Tensor) -> Tensor:
        """Values (N+1,) of the known levels, linear in between, at ``level`` (B,) and like it."""
        known, values = self.known.to(level), values.to(level)
        above = torch.searchsorted(known, level.contiguous()).clamp(1, len(known) - 1)
        share = (level - known[above - 1]) / (known[above] - known[above - 1])
        return values[above - 1].lerp(values[above], share.clamp(0, 1))
