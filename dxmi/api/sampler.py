"""Samplers: chains of steps from noise to a sample."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from dxmi.api.cost import CostToGo
from dxmi.api.noise import Noise, randn

Annotations = Tensor | list[str] | None
"""What the data say of each of B items: labels (B,) long, B captions, or nothing."""


About = Annotations
"""Its name up to 0.1.0; it goes after one release."""

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
    """A chain of ``steps`` steps from noise to a sample.

    One that is made from a pretrained pipeline has the methods of ``FromPipeline`` too.
    """

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
    prompts: Sequence[str] = ()
    """captions that samples are drawn at, in turn"""

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
    def encode(self, batch: Tensor, about: Annotations = None) -> tuple[Tensor, Tensor | None]:
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

    def rivals(self) -> dict[str, Draw]:
        """What a user would pick instead of this sampler, by name."""
        return {}


@runtime_checkable
class FromPipeline(Protocol):
    """A sampler that is made from a pretrained pipeline and leaves one."""

    @classmethod
    def describe(cls, source: str, trust_remote_code: bool = False) -> dict[str, Any]:
        """What a pretrained source of such a sampler is, weights unread; JSON types.

        ``config`` among it is a run that would fine-tune it.

        Raises:
            ConfigError: the source is not one of theirs
        """

    def stock(self) -> Sampler:
        """A copy that ``save_pretrained`` writes with classes of diffusers alone, without code of its own.

        Raises:
            ConfigError: there is none, and which key would have to change
        """
