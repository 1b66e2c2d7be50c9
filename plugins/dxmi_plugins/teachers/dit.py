"""Class-conditional transformers on latents: DiT (Peebles and Xie 2023, arXiv:2212.09748)."""

from __future__ import annotations

from typing import Any

from diffusers import DiTTransformer2DModel
from torch import Tensor

from dxmi.api import Conditions, NetworkCall
from dxmi_plugins.teachers.conditions import labels_or_none
from dxmi_plugins.teachers.family import Family
from dxmi_plugins.teachers.networks import means


class DiT(Family):
    """Pipelines of a ``DiTTransformer2DModel``."""

    pipelines = ("DiTPipeline",)
    part = "transformer"
    networks = "DiTTransformer2DModel"

    def takes(self, pipeline: Any) -> bool:
        """Whether that is its network."""
        return isinstance(getattr(pipeline, "transformer", None), DiTTransformer2DModel)

    def call(self, pipeline: Any) -> NetworkCall:
        """With labels."""
        return call

    def conditions(self, pipeline: Any) -> Conditions:
        """Labels; one more tells nothing, since the network was trained with labels dropped."""
        return labels_or_none(pipeline.transformer, has_null=True)


def call(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``DiTTransformer2DModel``; cond: labels (B,)."""
    return means(network(x, timestep=timestep, class_labels=cond).sample, x)
