"""Gibbs sampling with exact conditionals (TOOLBOX row 7; Geman and Geman 1984)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dxmi.api import Conditionals, ConfigError, Cost, CostToGo

from .chain import Chain


class Gibbs(Chain):
    """One step draws every coordinate in turn from its law given the others, at temperature 1.

    Needs an energy that knows its conditionals (``Energy.conditional``), such as ``gaussian_mixture``.

    Args:
        steps: T, each a sweep over all coordinates
        start: std of the normal start x_0

    Raises:
        ConfigError: an option is out of its range, or, at the first step, the energy does not know its conditionals
    """

    def __init__(self, steps: int = 1000, start: float = 1.0):
        super().__init__(steps, start)

    @torch.no_grad()
    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """X (B,*S) -> the next state (B,*S), chains last in memory."""
        if not isinstance(cost_to_go, Cost):
            raise ConfigError("energy", f"{type(cost_to_go).__name__} is no dxmi.api.Cost, whose energy gibbs asks")
        energy = cost_to_go.energy
        if not isinstance(energy, Conditionals):
            reason = f"{type(energy).__name__} has no known conditionals, which gibbs needs"
            raise ConfigError("energy", reason, "take another sampler")
        x = x.movedim(0, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 0)
        coordinates = x.flatten(1)  # a view
        for i in range(coordinates.shape[1]):
            coordinates[:, i] = energy.conditional(x, i, generator)
        return x
