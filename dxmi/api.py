"""The contracts between the game and its players.

Shapes: ``B`` batch, ``S`` event shape (``D`` its number of entries), ``T`` sampler steps.
Time runs from noise to data: ``x_0`` is noise and **x_T is the sample** (MATH 1).
Energies are minimised: low energy means likely. ``cond`` is one optional tensor, never a dict of extras.

A plugin needs this module and nothing else of dxmi.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from dxmi.energy import Cost as Cost
from dxmi.energy import CostToGo as CostToGo
from dxmi.energy import Energy as Energy
from dxmi.energy import Noised as Noised
from dxmi.energy import Product as Product
from dxmi.energy import with_gradient as with_gradient
from dxmi.errors import ConfigError as ConfigError
from dxmi.references import DensitySamples as DensitySamples
from dxmi.references import Labelled as Labelled
from dxmi.samples import Noise as Noise
from dxmi.samples import Samples as Samples
from dxmi.samples import as_samples as as_samples
from dxmi.samples import randn as randn

About = Tensor | list[str] | None
"""What the data say of each of B items: labels (B,) long, B captions, or nothing."""

Draw = Callable[[int, int, Any], Tensor]
"""``draw(n, steps, generator) -> (n,*S)``: n samples made in that many steps; all noise comes from the generator.

With an attribute ``per_sample`` that is true it takes a list of n generators as well, one for each sample.
"""


class Transition(NamedTuple):
    """One Gaussian step, ``x_{t+1} ~ N(mean, std^2 I)``."""

    mean: Tensor
    """(B,*S)"""
    std: Tensor
    """broadcasts over (B,*S), positive"""

    def sample(self, generator: Noise = None) -> Tensor:
        """``mean + std*eps``, (B,*S), reparameterised: gradients reach mean and std."""
        return self.mean + self.std * randn(self.mean.shape, self.mean, generator)


class Sampler(nn.Module, ABC):
    """A chain of ``steps`` steps from noise to a sample."""

    steps: int
    independent: bool = True
    """whether a chain, after ``warmup``, does not see the others; False where they share proposals or are resampled"""
    stationary: bool = False
    """whether every step after ``warmup`` leaves the density as it is, so that states along a chain are draws"""
    warmup: int = 0
    """steps at the start that no draw may come from"""
    tau: float = 1.0
    """temperature: samples are meant to have the law of ``exp(-J(x, T)/tau)``"""
    rival_calls: int = 1
    """how often each step of a rival calls its network"""
    pipeline: bool = False
    """whether ``save_pretrained`` writes a diffusers pipeline"""
    sigmas: Tensor | None = None
    """(T,) std of the noise that x_t carries, where the cost to go has to know it"""
    call_options: Mapping[str, Any] = MappingProxyType({})
    """what the product is called with, beside what every pipeline of its class is"""
    per_sample: bool = False
    """whether ``initial``, ``step`` and ``conditions`` take a list of B generators too, one for each sample"""
    classes: int | None = None
    """labels that ``encode`` knows are 0..classes-1; None where it takes no labels"""

    @abstractmethod
    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """x_0 of the given shape (B,*S), on the sampler's device."""

    @abstractmethod
    def step(
        self,
        x: Tensor,
        t: Tensor,
        cost_to_go: CostToGo,
        generator: Generator | None = None,
        cond: Tensor | None = None,
    ) -> Tensor:
        """x_t (B,*S), t (B,) integer in 0..T-1 -> x_{t+1} (B,*S)."""

    # The game is played in the sampler's own space; the maps are the identity unless the teacher is latent.
    def encode(self, batch: Tensor, about: About = None) -> tuple[Tensor, Tensor | None]:
        """A data batch and what is told of each item -> (x (B,*S), cond (B,...)).

        Raises:
            ConfigError: the sampler needs labels or captions that are missing, or does not know a label
        """
        return batch, None

    def decode(self, x: Tensor) -> Tensor:
        """X (B,*S) -> what the data look like."""
        return x

    def state_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The event shape S of the states for data of event shape ``shape``."""
        return shape

    def conditions(self, n: int, generator: Generator | None = None) -> Tensor | None:
        """Conditions (n,...) to draw n samples at; None where there are none to choose."""
        return None

    def encoder_fingerprint(self) -> str:
        """What ``encode`` depends on beside its arguments, as a SHA-256 of its weights and settings."""
        return "identity"

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError if data of event shape ``shape`` do not fit this sampler."""
        return None

    def report(self) -> dict[str, Any]:
        """What the last chains have to tell: numbers, or tensors (B,) with one entry a chain.

        ``acceptance`` (B,) is the share of accepted proposals; chains where it is 0 count as frozen.
        """
        return {}

    def save_pretrained(self, folder: Path) -> None:
        """Write the product: by default the weights alone (safetensors, no code)."""
        from safetensors.torch import save_model

        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / "model.safetensors"))
        (folder / "config.json").write_text(json.dumps({"class": type(self).__qualname__, "steps": self.steps}))

    def load_pretrained(self, folder: Path) -> None:
        """Take over what ``save_pretrained`` wrote."""
        from safetensors.torch import load_model

        load_model(self, str(folder / "model.safetensors"))

    def stock(self) -> Sampler:
        """A copy that ``save_pretrained`` writes with classes of diffusers alone, without code of its own.

        Raises:
            ConfigError: there is none, and which key would have to change
        """
        raise ConfigError(f"sampler: {type(self).__name__} is no diffusers pipeline; there is nothing to export")

    @classmethod
    def describe(cls, source: str, trust_remote_code: bool = False) -> dict[str, Any]:
        """What a pretrained source of such a sampler is, weights unread; JSON types.

        ``config`` among it is a run that would fine-tune it.

        Raises:
            ConfigError: such samplers have no source, or it is not one of theirs
        """
        raise ConfigError(f"{source}: {cls.__name__} is made from no pipeline")

    def rivals(self) -> dict[str, Draw]:
        """What a user would pick instead of this sampler, by name."""
        return {}


class GaussianSampler(Sampler):
    """A sampler with Gaussian steps: the only kind that learns. Parameters named ``log_std`` learn at ``lr.std``."""

    value_guided: bool = False
    """whether the steps follow the cost to go's gradient, so that the start alone has parameters (MATH 4)"""

    must_imitate: bool = False
    """whether its teacher is more than it starts as, such as guided, so that it needs ``game.imitate``"""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """One step: x_t (B,*S), t (B,) integer in 0..T-1 -> the law of x_{t+1}."""

    def imitation(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Distance to the steps of its teacher at x_t (B,*S), t (B,) integer in 0..T-1: a scalar to descend.

        Raises:
            NotImplementedError: it has no teacher
        """
        raise NotImplementedError(f"{type(self).__name__} has no teacher to imitate")

    def running_cost(self, x: Tensor, t: Tensor, step: Transition) -> Tensor:
        """With ``value_guided``: the cost (B,) of the step from x_t (B,*S).

        Raises:
            NotImplementedError: the steps follow no value
        """
        raise NotImplementedError(f"{type(self).__name__} is not guided by a value")

    def start_loss(self, cost_to_go: CostToGo, shape: tuple[int, ...]) -> Tensor:
        """With ``value_guided`` and parameters: what the start x_0 (B,*S) descends, a scalar.

        Raises:
            NotImplementedError: the steps follow no value
        """
        raise NotImplementedError(f"{type(self).__name__} is not guided by a value")

    def noising(self, x_next: Tensor, t: Tensor) -> Transition:
        """The law of x_t given x_{t+1} (B,*S) in the chain that log-weights compare the sampler with (MATH 4).

        Raises:
            NotImplementedError: there is none
        """
        raise NotImplementedError(f"{type(self).__name__} has no noising chain, so it has no log-weights")

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like t (B,): that chain's law of x_t given x_T is N(alpha*x_T, sigma^2 I).

        Raises:
            NotImplementedError: there is no such chain
        """
        raise NotImplementedError(f"{type(self).__name__} has no noising chain, so nothing to learn from kept states")

    def perturb(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Samples x_T (B,*S) carried to x_0 (B,*S) by that chain: where rollouts from data start.

        Raises:
            NotImplementedError: there is no such chain
        """
        parts = self.marginal(torch.zeros(len(x), dtype=torch.long, device=x.device))
        alpha, sigma = (part.view(-1, *[1] * (x.ndim - 1)) for part in parts)
        return alpha * x + sigma * randn(x.shape, x, generator)

    def start_law(self, like: Tensor) -> Transition:
        """The law of x_0 for states like (B,*S).

        Raises:
            NotImplementedError: it is not told
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell the law of its start")

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
    """Compares samples with a reference."""

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n) -> (n,*S)``; the reference yields one event (*S) an item and knows its ``len``.

        dxmi hands in ``Samples``, which have more to offer, as batches and labels: ``as_samples(draw)`` is that of any
        callable. The reference of a known density is a ``DensitySamples``, of labelled items a ``Labelled``.
        """

    def stamp(self) -> dict[str, Any]:
        """What made the numbers: implementation, version, extractor, hashes. JSON types only."""
