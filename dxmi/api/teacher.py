"""The contract of a family of pretrained pipelines, and of what it says of one of them: its teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dxmi.api.noise import Noise
from dxmi.api.sampler import Annotations
from dxmi.api.schedule import Levels

NetworkCall = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
"""``call(network, x (B,C,H,W), timestep (B,), cond) -> output (B,C,H,W)``; cond: labels (B,), embeddings (B,L,d)."""


class Space(Protocol):
    """Maps images in [-1, 1] to a teacher's states and back."""

    factor: int
    """how many pixels lie along the side of one entry of a state"""
    parts: list[Any]
    """the frozen networks that ``encode`` runs"""

    def encode(self, images: Tensor) -> Tensor:
        """Images (B,C,H,W) in [-1, 1] -> x (B,*S), without chance and without gradients."""

    def decode(self, x: Tensor) -> Tensor:
        """X (B,*S) -> images (B,C,H,W), as the pipeline shows them but not clipped to [-1, 1]."""

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C,H,W) of the images whose states have the event shape ``shape``."""


class Conditions(Protocol):
    """Makes the one tensor ``cond`` out of what the data say of their items."""

    text: bool
    """whether the network is told captions"""
    parts: list[Any]
    """the frozen networks that ``encode`` runs"""
    tokenizers: list[Any]
    """what cuts captions for them"""

    @property
    def classes(self) -> int | None:
        """How many labels there are; None where the network is told none."""

    def encode(self, about: Annotations, device: torch.device) -> Tensor | None:
        """Labels (B,) or B captions -> cond (B,...) on ``device``. Raises ConfigError if they are missing or wrong."""

    def null(self) -> Tensor:
        """The condition (1,...) that tells the network nothing. Raises ConfigError if it has none."""

    def draw(self, n: int, prompts: list[str], generator: Noise, device: torch.device) -> Tensor | None:
        """Conditions (n,...) to draw n samples at: of the prompts, where the teacher draws from text."""


@runtime_checkable
class TeacherFamily(Protocol):
    """Pipelines of one kind, and all that makes a teacher of one of them.

    The class behind an entry point of the group ``dxmi.teachers`` is one, made without arguments. ``pipeline`` is a
    loaded pipeline of diffusers, or for ``dxmi inspect`` its parts alone, whose networks have no weights.
    """

    pipelines: tuple[str, ...]
    """names of the classes of its pipelines, known so before anything of a pipeline is loaded"""
    part: str
    """which of a pipeline's parts predicts: unet or transformer"""
    networks: str
    """the kind of network that it knows how to call, for messages"""

    def takes(self, pipeline: Any) -> bool:
        """Whether its network is one of this family: pipelines of one class may be of several, or bring a class."""

    def call(self, pipeline: Any) -> NetworkCall:
        """How the network is called. Raises ConfigError if it has inputs that nothing fills."""

    def levels(self, pipeline: Any) -> Levels:
        """The noise levels at which the network was trained. Raises ConfigError if they cannot be read off."""

    def space(self, pipeline: Any) -> Space:
        """Where its states live. Raises ConfigError if its autoencoder is not supported."""

    def conditions(self, pipeline: Any) -> Conditions:
        """What the network has to be told."""

    def student(self, pipeline: Any, network: Any, scheduler: Any) -> Any:
        """A pipeline of this network and scheduler, and of the other parts of ``pipeline``: what is exported."""
