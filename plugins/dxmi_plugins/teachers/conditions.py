"""What a teacher's network is told beside the state: nothing, labels, or the embeddings of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers import DiTTransformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

from dxmi.api import Annotations, ConfigError, Noise, turns
from dxmi_plugins.teachers.networks import pack


class Conditions(Protocol):
    """Makes the one tensor ``cond`` out of what the data say of their items."""

    parts: list[Any]
    """the frozen networks that ``encode`` runs"""
    tokenizers: list[Any]
    """what cuts captions for them"""

    def encode(self, about: Annotations, device: torch.device) -> Tensor | None:
        """Labels (B,) or B captions -> cond (B,...) on ``device``. Raises ConfigError if they are missing or wrong."""

    def null(self) -> Tensor:
        """The condition (1,...) that tells the network nothing. Raises ConfigError if it has none."""

    def draw(self, n: int, prompts: list[str], generator: Noise, device: torch.device) -> Tensor | None:
        """Conditions (n,...) to draw n samples at: of the prompts, where the teacher draws from text."""


class Unconditional:
    """The network is told nothing; labels and captions go unused."""

    parts: list[Any] = []
    tokenizers: list[Any] = []

    def encode(self, about: Annotations, device: torch.device) -> None:
        """None, whatever is told."""
        return None

    def null(self) -> Tensor:
        """There is none."""
        raise ConfigError("guidance", "the teacher is unconditional", "leave it at 1")

    def draw(self, n: int, prompts: list[str], generator: Noise, device: torch.device) -> None:
        """None."""
        return None


class Labels:
    """Labels 0..classes-1, drawn uniformly at random; one more tells nothing, if the network was trained with it."""

    parts: list[Any] = []
    tokenizers: list[Any] = []

    def __init__(self, classes: int, has_null: bool):
        self.classes, self.has_null = classes, has_null

    def encode(self, about: Annotations, device: torch.device) -> Tensor:
        """The labels (B,) as they are, long."""
        if not isinstance(about, Tensor):
            raise ConfigError(
                "data.label", f"the teacher draws {self.classes} classes", "name the column of their labels"
            )
        wrong = about[(about < 0) | (about >= self.classes)]
        if len(wrong):
            raise ConfigError(
                "data.label",
                f"{int(wrong[0])} is none of the teacher's classes, 0..{self.classes - 1}",
                "use other data",
            )
        return about.to(device, torch.long)

    def null(self) -> Tensor:
        """The label (1,) after the last class."""
        if not self.has_null:
            raise ConfigError("guidance", "the teacher's network has no class that means none", "leave it at 1")
        return torch.tensor([self.classes])

    def draw(self, n: int, prompts: list[str], generator: Noise, device: torch.device) -> Tensor:
        """Labels (n,); a CPU generator gives the same ones on every device, a list of n each label from its own."""
        if isinstance(generator, Sequence):
            return torch.cat([self.draw(1, prompts, one, device) for one in generator])
        place = device if generator is None else generator.device
        return torch.randint(self.classes, (n,), generator=generator, device=place).to(device)


class Text:
    """Captions, embedded by the pipeline's own frozen encoders; prompts are drawn in turn."""

    def __init__(self, pipeline: Any):
        self.pipeline = pipeline
        parts = [(name, part) for name, part in pipeline.components.items() if part is not None]
        self.parts = [part.eval().requires_grad_(False) for name, part in parts if name.startswith("text_encoder")]
        self.tokenizers = [part for name, part in parts if name.startswith("tokenizer")]

    def encode(self, about: Annotations, device: torch.device) -> Tensor:
        """Embeddings (B,L,d), float32; with pooled ones (B,L+1,d), the last row theirs."""
        if about is None or isinstance(about, Tensor):
            raise ConfigError("data.caption", "the teacher draws from text", "name the column of the captions")
        text, _, *pooled = self._embed(about, device, guided=False)
        return (pack(text, pooled[0]) if pooled else text).float()

    def null(self) -> Tensor:
        """What the pipeline itself guides with: the empty prompt, or zeros."""
        _, text, *pooled = self._embed([""], torch.device("cpu"), guided=True)
        return (pack(text, pooled[1]) if pooled else text).float()

    @torch.no_grad()
    def _embed(self, prompts: list[str], device: torch.device, guided: bool) -> tuple[Tensor, ...]:
        for encoder in self.parts:
            encoder.to(device)
        given = {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": guided}
        if isinstance(self.pipeline, StableDiffusion3Pipeline):
            given |= {"prompt_2": None, "prompt_3": None}
        return self.pipeline.encode_prompt(prompts, **given)  # type: ignore[no-any-return]

    def draw(self, n: int, prompts: list[str], generator: Noise, device: torch.device) -> Tensor:
        """Sample i is at prompt i, from the first again after the last. Raises ConfigError without any."""
        if not prompts:
            raise ConfigError("sampler.prompts", "the teacher draws from text", "list some captions to draw samples at")
        used, places = torch.unique(turns(n, generator) % len(prompts), return_inverse=True)
        return self.encode([prompts[i] for i in used.tolist()], device)[places.to(device)]


def conditions_of(pipeline: Any, network: Any) -> Conditions:
    """What the pipeline's network has to be told."""
    if getattr(pipeline, "text_encoder", None) is not None:
        return Text(pipeline)
    classes = network.config.get("num_class_embeds") or network.config.get("num_embeds_ada_norm")
    has_null = isinstance(network, DiTTransformer2DModel)  # trained with labels dropped
    return Labels(classes, has_null) if classes else Unconditional()
