"""Stable Diffusion 1 and 2: a UNet on latents that reads the embeddings of a text (arXiv:2112.10752)."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor

from dxmi.api import Conditions, ConfigError, NetworkCall
from dxmi_plugins.teachers.conditions import Text
from dxmi_plugins.teachers.family import Family
from dxmi_plugins.teachers.networks import means

UNFILLED = ("time_cond_proj_dim", "num_class_embeds", "encoder_hid_dim_type")
"""settings of ``UNet2DConditionModel`` that add inputs which nothing here fills"""


class StableDiffusion(Family):
    """Pipelines of a ``UNet2DConditionModel`` that is told a text alone."""

    pipelines: tuple[str, ...] = ("StableDiffusionPipeline",)
    part = "unet"
    networks = "UNet2DConditionModel (text)"

    def takes(self, pipeline: Any) -> bool:
        """Whether that is its network."""
        return conditioned(pipeline, None)

    def call(self, pipeline: Any) -> NetworkCall:
        """With the text's embeddings."""
        refuse_unfilled(pipeline.unet)
        return call

    def conditions(self, pipeline: Any) -> Conditions:
        """Captions."""
        return Text(pipeline)


def conditioned(pipeline: Any, added: str | None) -> bool:
    """Whether the network is a ``UNet2DConditionModel`` that is told this beside a text, and no class."""
    network = getattr(pipeline, "unet", None)
    if not isinstance(network, UNet2DConditionModel):
        return False
    return network.config.class_embed_type is None and network.config.addition_embed_type == added


def refuse_unfilled(network: Any) -> None:
    """Raise ConfigError if a ``UNet2DConditionModel`` has an input that nothing here fills."""
    for key in UNFILLED:
        if network.config.get(key):
            raise ConfigError("teacher", f"its network has the input {key}, which is not supported", "take another one")


def call(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``UNet2DConditionModel``; cond: text embeddings (B,L,d)."""
    return means(network(x, timestep, encoder_hidden_states=cond).sample, x)
