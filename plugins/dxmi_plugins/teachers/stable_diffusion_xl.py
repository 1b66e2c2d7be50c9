"""Stable Diffusion XL: a UNet on latents that reads a text, its pooled embedding and the image's sizes (2307.01952)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from dxmi.api import NetworkCall
from dxmi_plugins.teachers.networks import means, unpack
from dxmi_plugins.teachers.stable_diffusion import StableDiffusion, conditioned, refuse_unfilled


class StableDiffusionXL(StableDiffusion):
    """Pipelines of a ``UNet2DConditionModel`` that is also told a pooled text and six sizes."""

    pipelines = ("StableDiffusionXLPipeline",)
    networks = "UNet2DConditionModel (text_time)"

    def takes(self, pipeline: Any) -> bool:
        """Whether that is its network."""
        return conditioned(pipeline, "text_time")

    def call(self, pipeline: Any) -> NetworkCall:
        """With the text's embeddings, the pooled ones, and the sizes of the images that the latents are of."""
        refuse_unfilled(pipeline.unet)
        return partial(call, factor=self.space(pipeline).factor)


def call(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None, factor: int) -> Tensor:
    """``UNet2DConditionModel`` of SDXL: also pooled embeddings, and six sizes: original, crop, target, in pixels."""
    pooled = network.add_embedding.linear_1.in_features - 6 * network.config.addition_time_embed_dim
    width = network.config.cross_attention_dim
    text, pooled_text = unpack(cond, width, pooled)
    size = [factor * side for side in x.shape[-2:]]
    time_ids = text.new_tensor([*size, 0, 0, *size]).expand(len(x), -1)
    added = {"text_embeds": pooled_text, "time_ids": time_ids}
    return means(network(x, timestep, encoder_hidden_states=text, added_cond_kwargs=added).sample, x)
