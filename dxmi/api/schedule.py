"""Schedules: which of a teacher's noise levels a few steps go through."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

PURE_NOISE = 1000.0
"""the noise level of states that have no signal left; 0 is clean"""


def noise_level(alpha: Tensor, sigma: Tensor) -> Tensor:
    """How noisy ``alpha*x0 + sigma*eps`` is: ``2000/pi*atan(sigma/alpha)`` in [0, 1000], of a shape with both.

    It depends on the ratio alone, so it means the same whatever a teacher's levels and number of steps are (MATH 3.7).
    """
    return torch.atan2(sigma, alpha) * (2 * PURE_NOISE / math.pi)


class Levels(NamedTuple):
    """The N noise levels of a teacher, the cleanest first: its network sees ``x_t = alpha*x0 + sigma*eps`` (MATH 2)."""

    timesteps: Tensor
    """(N,) what the network is told of each level"""
    alphas: Tensor
    """(N,)"""
    sigmas: Tensor
    """(N,)"""
    prediction_type: str
    """what the network returns: epsilon, sample, v_prediction, flow_prediction, edm or score"""
    sigma_data: float | None = None
    """std of the data of an EDM network (Karras et al. 2022): alpha = 1/sqrt(s^2 + sigma_data^2), sigma = alpha*s"""
    bounded: bool = True
    """whether the data lie in [-1, 1], as pixels do and latents do not"""


class Schedule(Protocol):
    """T transitions between noise levels of a teacher; a diffusers scheduler too, where it goes into a pipeline."""

    timesteps: Tensor
    """(T,) the teacher's timestep at each node, noisiest first"""
    stds: Tensor
    """(T,) standard deviation of each transition"""
    init_noise_sigma: float
    """standard deviation of the noise that the first transition starts from"""

    def transition(self, output: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output at x_t (both (B,*S)), t (B,) integer in 0..T-1 -> mean and std of x_{t+1}."""

    def level(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like t (B,) integer in 0..T-1: x_t is ``alpha*x0 + sigma*eps``."""

    def x0hat(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean image that the network's output at x stands for; all broadcast over (B,*S)."""

    def with_stds(self, stds: list[float]) -> Self:
        """The same nodes with these T standard deviations."""


class Scheduler(Protocol):
    """Chooses the nodes of a schedule."""

    def bind(self, levels: Levels) -> Schedule:
        """A schedule with nodes among the teacher's levels. Raises ConfigError where the choice does not fit them."""
