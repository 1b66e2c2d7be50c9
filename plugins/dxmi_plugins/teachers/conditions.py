"""What a teacher's network is told beside the state: nothing, labels, or the embeddings of a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dxmi.api import Annotations, Conditions, ConfigError, Noise, turns
from dxmi.api.noise import random_labels
from dxmi.pipelines import class_count
from dxmi_plugins.teachers.networks import pack


class Unconditional:
    """The network is told nothing; labels and captions go unused."""

    classes = None
    text = False
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

    text = False
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
        return random_labels(n, self.classes, generator, device)


class Text:
    """Captions, embedded by the pipeline's own frozen encoders; prompts are drawn in turn.

    Args:
        pipeline: whose ``encode_prompt`` embeds them
        options: more of that method's arguments
    """

    classes = None
    text = True

    def __init__(self, pipeline: Any, **options: Any):
        self.pipeline, self.options = pipeline, options
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
        fixed = {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": guided}
        return self.pipeline.encode_prompt(prompts, **fixed, **self.options)  # type: ignore[no-any-return]

    def draw(self, n: int, prompts: list[str], generator: Noise, device: torch.device) -> Tensor:
        """Sample i is at prompt i, from the first again after the last. Raises ConfigError without any."""
        if not prompts:
            raise ConfigError("sampler.prompts", "the teacher draws from text", "list some captions to draw samples at")
        used, places = torch.unique(turns(n, generator) % len(prompts), return_inverse=True)
        return self.encode([prompts[i] for i in used.tolist()], device)[places.to(device)]


def labels_or_none(network: Any, has_null: bool = False) -> Conditions:
    """The labels that a network of diffusers knows by its config; without any it is unconditional."""
    classes = class_count(network.config)
    return Labels(classes, has_null) if classes else Unconditional()
