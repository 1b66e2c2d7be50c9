"""Samplers that learn: chains of Gaussian steps, and what else they may know."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from dxmi.api.cost import Cost, CostToGo
from dxmi.api.energy import Energy
from dxmi.api.sampler import Sampler, Transition


class GaussianSampler(Sampler):
    """A sampler with Gaussian steps: the only kind that learns. Parameters named ``log_std`` learn at ``lr.std``.

    What else it knows it says by having the methods of ``ValueGuided``, ``Imitates``, ``Marginals``, ``Perturbs``,
    ``KnownStart`` or ``Noising``; ``isinstance(sampler, Noising)`` asks. Up to 0.1.0 this class had them all and they
    raised NotImplementedError: plugins that override them need no change, and ``value_guided`` is no longer read.
    """

    must_imitate: bool = False
    """whether its teacher is more than it starts as, such as guided, so that it needs ``game.imitate``"""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """One step: x_t (B,*S), t (B,) integer in 0..T-1 -> the law of x_{t+1}."""

    def step(
        self,
        x: Tensor,
        t: Tensor,
        cost_to_go: CostToGo,
        generator: Generator | None = None,
        cond: Tensor | None = None,
    ) -> Tensor:
        """Draw from ``forward``."""
        law: Transition = self(x, t, cost_to_go, cond)
        return law.sample(generator)


@runtime_checkable
class ValueGuided(Protocol):
    """A sampler whose steps follow the cost to go's gradient, so that its start alone has parameters (MATH 4)."""

    def running_cost(self, x: Tensor, t: Tensor, step: Transition) -> Tensor:
        """The cost (B,) of the step from x_t (B,*S)."""

    def start_loss(self, cost_to_go: CostToGo, shape: tuple[int, ...]) -> Tensor:
        """What the start x_0 of this shape (B,*S) descends, a scalar."""


@runtime_checkable
class Imitates(Protocol):
    """A sampler with a teacher to imitate."""

    def imitation(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Distance to the steps of its teacher at x_t (B,*S), t (B,) integer in 0..T-1: a scalar to descend."""


@runtime_checkable
class Marginals(Protocol):
    """A sampler whose noising chain has a Gaussian law of x_t given x_T: states can be noised to step t at once."""

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like t (B,): x_t given x_T is N(alpha*x_T, sigma^2 I)."""


@runtime_checkable
class Perturbs(Protocol):
    """A sampler that runs its noising chain itself, where that has no such law."""

    def perturb(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Samples x_T (B,*S) carried to x_0 (B,*S): where rollouts from data start."""


@runtime_checkable
class KnownStart(Protocol):
    """A sampler that tells the law of its start."""

    def start_law(self, like: Tensor) -> Transition:
        """The law of x_0 for states like (B,*S)."""


@runtime_checkable
class Noising(KnownStart, Protocol):
    """A sampler with a noising chain to compare its paths with, so one with log-weights (MATH 4.7)."""

    def noising(self, x_next: Tensor, t: Tensor) -> Transition:
        """The law of x_t given x_{t+1} (B,*S) in that chain."""


@runtime_checkable
class NoisedData(Protocol):
    """A sampler whose states are data with noise, and that knows what data look like at any level of it (MATH 3.7)."""

    noise_levels: Tensor
    """(T+1,) ``noise_level`` of x_0 to x_T, falling to 0; of x_0, which is pure noise, the one that its step is told"""
    gains: Tensor
    """(T,) how far the mean of each step moves with the output of its network (MATH 3.9)"""

    def at_level(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like level (B,) in [0, 1000]: data at it are N(alpha*x_T, sigma^2 I).

        Levels above the noisiest that the sampler knows give that one.
        """


@runtime_checkable
class KnowsPaths(Protocol):
    """A sampler whose teacher draws paths from noise to samples that a few steps can learn (MATH 3.8)."""

    def paths(self, n: int, steps: int, generator: Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """N paths of the teacher's solver in about ``steps`` steps: their x_0 to x_T (T+1,n,*S), and cond (n,...)."""

    def path_loss(self, x: Tensor, t: Tensor, x_next: Tensor, cond: Tensor | None = None) -> Tensor:
        """How far the steps from x_t (B,*S), t (B,), are from those of the path, to x_{t+1} (B,*S): a scalar."""


@runtime_checkable
class KnowsScore(Protocol):
    """A sampler whose teacher tells clean data from noised ones, so that its score can be distilled (DMD2)."""

    def score_network(self) -> nn.Module:
        """A network that learns, as the teacher's is now: what samples of the student look like to it."""

    def denoised(
        self, x: Tensor, level: Tensor, cond: Tensor | None = None, network: nn.Module | None = None
    ) -> Tensor:
        """The clean data (B,*S) that x (B,*S) at ``level`` (B,) comes from, by the teacher or by ``network``."""


def cost_to_go(energy: Energy, value: Energy | None, sampler: Sampler, cond: Tensor | None = None) -> Cost:
    """The ``Cost`` along a sampler's chain; an energy that reads noise is told the levels of its steps."""
    levels = sampler.noise_levels if energy.reads_noise and isinstance(sampler, NoisedData) else None
    return Cost(energy, value, sampler.steps, cond, levels)
