"""Integrals over one- and two-dimensional densities by Simpson's rule (TOOLBOX row 2).

What lies outside the box is left out. Where the density is smooth and vanishes at the ends of the box, steps of a third
of its narrowest width (the std of a normal) are exact to rounding; elsewhere the error falls with their fourth power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from dxmi.api import ConfigError, Energy

End = float | Sequence[float]
"""one end of the box: a number for all coordinates, or one number each"""


PART = 65_536
"""grid points that an energy sees at a time"""


def log_z(energy: Energy, low: End, high: End, points: int = 1001) -> Tensor:
    """``log integral exp(-E(x)) dx`` over the box: a float64 scalar, differentiable in the energy's parameters.

    points: of the grid along each coordinate, an odd number.

    Raises:
        ConfigError: the energy is no known density of one or two dimensions, or the grid does not fit
    """
    x, log_weights = _grid(energy, low, high, points)
    return (log_weights - _energies(energy, x)).logsumexp(0)


def expectation(f: Callable[[Tensor], Tensor], energy: Energy, low: End, high: End, points: int = 1001) -> Tensor:
    """``E_p[f(x)]`` under ``p = exp(-E)/Z`` on the box: f (N,*S) -> (N,...) gives a float64 tensor (...).

    points: of the grid along each coordinate, an odd number.

    Raises:
        ConfigError: the energy is no known density of one or two dimensions, or the grid does not fit
    """
    x, log_weights = _grid(energy, low, high, points)
    p = (log_weights - _energies(energy, x)).softmax(0)
    values = torch.cat([f(part) for part in torch.split(x, PART)]).to(p)
    return torch.tensordot(p, values, 1)  # type: ignore[no-any-return]


def _energies(energy: Energy, x: Tensor) -> Tensor:
    return torch.cat([energy(part) for part in torch.split(x, PART)]).double()


def _grid(energy: Energy, low: End, high: End, points: int) -> tuple[Tensor, Tensor]:
    """Nodes (N,*S) and the logs of Simpson's weights (N,), where the energy lives."""
    shape = energy.event_shape
    if shape is None or math.prod(shape) not in (1, 2):
        raise ConfigError("energy", f"{type(energy).__name__} has events of shape {shape}, not of one or two numbers")
    if points < 3 or points % 2 == 0:
        raise ConfigError("points", f"{points} is not an odd number of 3 or more, as Simpson's rule needs")
    like = next(chain(energy.parameters(), energy.buffers()), torch.empty(0))
    below, above = (_per_coordinate(end, math.prod(shape)) for end in (low, high))
    if not all(a < b for a, b in zip(below, above, strict=True)):
        raise ConfigError("low", f"{low} is not below high: {high}")
    weights = torch.full((points,), 2.0, dtype=torch.float64, device=like.device)
    weights[1::2] = 4
    weights[[0, -1]] = 1
    axes, logs = [], []
    for a, b in zip(below, above, strict=True):
        axes.append(torch.linspace(a, b, points, dtype=torch.float64, device=like.device))
        logs.append((weights * (b - a) / (3 * (points - 1))).log())
    x = torch.cartesian_prod(*axes).reshape(-1, *shape)
    return x, torch.cartesian_prod(*logs).reshape(len(x), -1).sum(1)


def _per_coordinate(end: End, size: int) -> list[float]:
    ends = [float(e) for e in end] if isinstance(end, Sequence) else [float(end)] * size
    if len(ends) != size:
        raise ConfigError("low, high", f"{end} is not one number for each of {size} coordinates")
    return ends
