"""The contracts between the game and its players.

Shapes: ``B`` batch, ``S`` event shape (``D`` its number of entries), ``T`` sampler steps.
Time runs from noise to data: ``x_0`` is noise and **x_T is the sample** (MATH 1).
Energies are minimised: low energy means likely. ``cond`` is one optional tensor, never a dict of extras.

A plugin needs this module and nothing else of dxmi.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor
from torch.utils.data import Dataset

from dxmi.energy import Cost as Cost
from dxmi.energy import CostToGo as CostToGo
from dxmi.energy import Energy as Energy
from dxmi.energy import Noised as Noised
from dxmi.energy import Product as Product
from dxmi.energy import with_gradient as with_gradient
from dxmi.errors import ConfigError as ConfigError
from dxmi.gaussian_sampler import GaussianSampler as GaussianSampler
from dxmi.references import DensitySamples as DensitySamples
from dxmi.references import Labelled as Labelled
from dxmi.samplers import About as About
from dxmi.samplers import Draw as Draw
from dxmi.samplers import Sampler as Sampler
from dxmi.samplers import Transition as Transition
from dxmi.samples import Noise as Noise
from dxmi.samples import Samples as Samples
from dxmi.samples import as_samples as as_samples
from dxmi.samples import randn as randn
from dxmi.samples import turns as turns


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


@runtime_checkable
class Reconstructs(Protocol):
    """An energy that gives events back: what ``dxmi pretrain`` trains with ``objective: reconstruction``."""

    def reconstruction_loss(self, x: Tensor) -> Tensor:
        """How far events x (B,*S) are from what is given back, a scalar: the mean of squared distances."""


class Evaluator(Protocol):
    """Compares samples with a reference.

    Optional attributes of the class: ``HIGHER``, how the names of those figures begin that are better when higher, and
    ``METRICS``, what its option ``metrics`` takes, of which a run's proxy is the first.
    """

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n) -> (n,*S)``; the reference yields one event (*S) an item and knows its ``len``.

        dxmi hands in ``Samples``, which have more to offer, as batches and labels: ``as_samples(draw)`` is that of any
        callable. The reference of a known density is a ``DensitySamples``, of labelled items a ``Labelled``.
        """

    def stamp(self) -> dict[str, Any]:
        """What made the numbers: implementation, version, extractor, hashes. JSON types only."""
