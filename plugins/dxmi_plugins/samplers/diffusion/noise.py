"""The noise of a student's states: at its nodes, and at any level between those of its teacher (MATH 3.7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dxmi.api import Levels, Schedule, noise_level
from dxmi.api.noise import per_row
from dxmi.api.schedule import PURE_NOISE
from dxmi_plugins.teachers.noise_table import NoiseTable

SMALL = 1e-3
"""an output of the network that moves no mean to where it is clipped"""


class NoiseLevels(NoiseTable):
    """What data with noise are to a teacher, by how noisy they are, ``noise_level`` in [0, 1000].

    A level tells ``sigma/alpha``. Which of the pairs with that ratio the teacher sees is read off its own N levels:
    between them ``1/hypot(alpha, sigma)`` is linear in the level. It is 1 for variance-preserving teachers, the cosine
    of the level as an angle for variance-exploding ones, cosine and sine for flow matching, so smooth for all.

    Args:
        levels: of the teacher
        schedule: whose T nodes are among them or between
    """

    of_nodes: Tensor
    """(T+1,) the level of each node, the last one, of data, 0"""
    alphas: Tensor
    """(T+1,) of the nodes, the last 1"""
    sigmas: Tensor
    """(T+1,) of the nodes, the last 0"""
    gains: Tensor
    """(T,) how far the mean of each step moves with the network's output (MATH 3.9)"""
    inverses: Tensor
    """(N+1,) 1/hypot(alpha, sigma)"""

    def __init__(self, levels: Levels, schedule: Schedule):
        super().__init__(levels)
        alphas, sigmas = levels.alphas.double(), levels.sigmas.double()
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        t = torch.arange(len(schedule.stds))
        node_alphas, node_sigmas = (part.double() for part in schedule.level(t))
        output = torch.full((len(t), 1, 1, 1), SMALL, dtype=torch.float64)
        means, _ = schedule.transition(output, torch.zeros_like(output), t)
        tables = {
            "of_nodes": torch.cat([noise_level(node_alphas, node_sigmas), zero]),
            "alphas": torch.cat([node_alphas, one]),
            "sigmas": torch.cat([node_sigmas, zero]),
            "gains": means.flatten().abs() / SMALL,
            "inverses": torch.cat([one, 1 / torch.hypot(alphas, sigmas)]),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like level (B,); above the noisiest level that the teacher knows, those of it."""
        level = level.minimum(self.known[-1].to(level))
        angle, radius = level * (math.pi / 2 / PURE_NOISE), 1 / self.between(self.inverses, level)
        return radius * angle.cos().clamp_min(0), radius * angle.sin()

    def seen(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States x (B,*S) at ``level`` (B,) as the network sees them, and its timesteps, ``alpha``, ``sigma``: (B,).

        What is cleaner than the teacher's cleanest level is shown as if it were that.
        """
        shown = level.maximum(self.known[1].to(level))
        (given, _), (alpha, sigma) = self.at(level), self.at(shown)
        return per_row(alpha / given, x) * x, self.timestep(shown), alpha, sigma


class NoisedStates:
    """What ``NoisedData`` asks of a sampler, by its ``noise``."""

    noise: NoiseLevels

    @property
    def noise_levels(self) -> Tensor:
        """(T+1,) of the nodes, the last one 0 (MATH 3.7)."""
        return self.noise.of_nodes

    @property
    def gains(self) -> Tensor:
        """(T,) how far the mean of each step moves with the network's output (MATH 3.9)."""
        return self.noise.gains

    def at_level(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like level (B,) in [0, 1000]; above the teacher's noisiest level those of it."""
        return self.noise.at(level)
