"""Annealed Langevin (TOOLBOX row 23; Song and Ermon 2019, arXiv:1907.05600, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import CostToGo, gradient_of
from dxmi_plugins.schedulers.noise_ladder import chosen_step_size, ladder, step_size_at

from .chain import Chain, chains_last


class AnnealedLangevin(Chain):
    """Langevin on densities with less and less noise added, so that modes get their weights while they still overlap.

    At noise level n, ``inner`` times ``x' = x - h_n*grad E_n(x) + sqrt(2*h_n)*eps``, where E_n is the energy of the
    density with noise of std sigma_n added, and ``h_n = step_size*(sigma_n/sigma_min)^2``; the epsilon of Song and
    Ermon 2019 is 2*h. Works on densities that know themselves with noise added (``Energy.convolved``), or with an
    energy with time as the value. The steps are stable up to 2*sigma_min^2. Modes much wider than sigma_min keep the
    width of an earlier level if steps are small or few.

    Args:
        sigmas: stds of the noise, falling; null takes ``levels`` of them, geometric from sigma_max to sigma_min
        sigma_max: std of the first level
        sigma_min: std of the last level
        levels: number of levels, 2 or more
        inner: steps at each level
        step_size: h at the last level; null takes the best for modes of no width (Song and Ermon 2020, technique 4)
        start: std of the normal start x_0; null takes the first level's
        denoise: whether the last of all steps removes the last level's noise, ``x' = x - sigma^2*grad E(x)``

    Raises:
        ConfigError: an option is out of its range
    """

    stationary = False

    def __init__(
        self,
        sigmas: list[float] | None = None,
        sigma_max: float = 10.0,
        sigma_min: float = 0.1,
        levels: int = 10,
        inner: int = 5,
        step_size: float | None = None,
        start: float | None = None,
        denoise: bool = True,
    ):
        rungs = ladder(sigmas, sigma_max, sigma_min, levels)
        first_step_size = chosen_step_size(step_size, rungs, inner)
        stds = [sigma for sigma in rungs for _ in range(inner)] + ([rungs[-1]] if denoise else [])
        super().__init__(len(stds), rungs[0] if start is None else start)
        self.stds, self.sigmas = stds, torch.tensor(stds, dtype=torch.float64)
        self.step_size, self.denoise = first_step_size, denoise

    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """X (B,*S) at step k -> the next state (B,*S)."""
        sigma, sigma_min = self.stds[k], self.stds[-1]
        _, g = gradient_of(cost_to_go, x, torch.full((len(x),), k, device=x.device))
        if self.denoise and k + 1 == self.steps:
            return x.sub(g, alpha=sigma**2)
        h = step_size_at(sigma, sigma_min, self.step_size)
        return chains_last(tuple(x.shape), x, generator).mul_(math.sqrt(2 * h)).add_(x).sub_(g, alpha=h)

    def report(self) -> dict[str, Any]:
        """The step size at the last level."""
        return {"step_size": self.step_size}
