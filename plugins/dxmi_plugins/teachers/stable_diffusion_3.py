"""Stable Diffusion 3: a transformer on latents, told a text and its pooled embedding, flow matching (2403.03206)."""

from __future__ import annotations

from typing import Any

from diffusers import SD3Transformer2DModel
from torch import Tensor

from dxmi.api import Conditions, NetworkCall
from dxmi_plugins.teachers.conditions import Text
from dxmi_plugins.teachers.family import Family
from dxmi_plugins.teachers.networks import means, unpack


class StableDiffusion3(Family):
    """Pipelines of an ``SD3Transformer2DModel``."""

    pipelines = ("StableDiffusion3Pipeline",)
    part = "transformer"
    networks = "SD3Transformer2DModel"

    def takes(self, pipeline: Any) -> bool:
        """Whether that is its network."""
        return isinstance(getattr(pipeline, "transformer", None), SD3Transformer2DModel)

    def call(self, pipeline: Any) -> NetworkCall:
        """With the text's embeddings and the pooled ones."""
        return call

    def conditions(self, pipeline: Any) -> Conditions:
        """Captions, the same ones for each of its encoders."""
        return Text(pipeline, prompt_2=None, prompt_3=None)


def call(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``SD3Transformer2DModel``; cond: text embeddings and pooled ones, packed (B,L+1,d)."""
    text, pooled = unpack(cond, network.config.joint_attention_dim, network.config.pooled_projection_dim)
    output = network(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=timestep)
    return means(output.sample, x)
