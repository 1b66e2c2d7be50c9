"""How pipelines of each class are called: what to hand them beside the number of steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dxmi.api.errors import require


class PipelineCall(NamedTuple):
    """What a pipeline draws at. ``captions``: texts; ``classes``: how many labels; ``batches``: takes a batch_size."""

    captions: bool
    classes: int | None
    batches: bool

    def options(self, n: int, labels: Sequence[int], prompts: Sequence[str]) -> dict[str, Any]:
        """Keyword arguments for n images at labels or prompts, each in turn."""
        if self.captions:
            return {"prompt": [prompts[i % len(prompts)] for i in range(n)]}
        size: dict[str, Any] = {"batch_size": n} if self.batches else {}
        return size | ({"class_labels": [labels[i % len(labels)] for i in range(n)]} if self.classes else {})

    @property
    def once(self) -> dict[str, Any]:
        """What makes a pipeline call its network once a step: a student's guidance is in its weights."""
        return {} if self.batches else {"guidance_scale": 1.0}


def class_count(config: Mapping[str, Any]) -> int | None:
    """How many labels a network of diffusers knows, by its config; None where it is told none."""
    return config.get("num_class_embeds") or config.get("num_embeds_ada_norm")


def call_of(components: Sequence[str], config: dict[str, Any]) -> PipelineCall:
    """How a pipeline with these components is called; ``config`` is its network's."""
    captions = "text_encoder" in components
    classes = None if captions else class_count(config)
    return PipelineCall(captions, classes, batches=not captions and "transformer" not in components)


def call_of_folder(folder: Path) -> PipelineCall:
    """The same, of a saved pipeline."""
    index = json.loads((folder / "model_index.json").read_text())
    network = "transformer" if "transformer" in index else "unet"
    return call_of(list(index), json.loads((folder / network / "config.json").read_text()))


def network_of(pipeline: Any) -> Any:
    """The network of a pipeline: its transformer or its UNet.

    Raises:
        ConfigError: it has neither
    """
    network = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    require(
        network is not None,
        f"{type(pipeline).__name__}",
        "has no unet and no transformer",
        "take a pipeline that has one",
    )
    return network


def call_of_pipeline(pipeline: Any) -> PipelineCall:
    """The same, of a loaded one.

    Raises:
        ConfigError: it has no network
    """
    return call_of(list(pipeline.components), dict(network_of(pipeline).config))
