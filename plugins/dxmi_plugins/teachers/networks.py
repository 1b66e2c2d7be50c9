"""How each kind of network is called: one signature for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn
from torch.nn.functional import pad

from dxmi.api import ConfigError

Call = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
"""``call(network, x (B,C,H,W), timestep (B,), cond) -> output (B,C,H,W)``; cond: labels (B,), embeddings (B,L,d)."""


UNFILLED = ("time_cond_proj_dim", "num_class_embeds", "encoder_hid_dim_type")
"""settings of ``UNet2DConditionModel`` that add inputs which nothing here fills"""


def caller(network: Any, factor: int) -> Call:
    """How this network is called; ``factor`` is how many pixels lie along the side of one latent.

    Raises:
        ConfigError: the network is of a kind or has inputs that are not supported
    """
    if isinstance(network, UNet2DConditionModel):
        for key in UNFILLED:
            if network.config.get(key):
                raise ConfigError(
                    "teacher", f"its network has the input {key}, which is not supported", "take another one"
                )
    if isinstance(network, UNet2DModel) and network.config.class_embed_type is None:
        return call_unet
    if isinstance(network, DiTTransformer2DModel):
        return call_dit
    if isinstance(network, SD3Transformer2DModel):
        return call_sd3
    if isinstance(network, UNet2DConditionModel) and network.config.class_embed_type is None:
        if network.config.addition_embed_type is None:
            return call_text_unet
        if network.config.addition_embed_type == "text_time":
            return partial(call_sdxl, factor=factor)
    kinds = "UNet2DModel, DiTTransformer2DModel, UNet2DConditionModel (text or text_time), SD3Transformer2DModel"
    raise ConfigError("teacher", f"this {type(network).__name__} is not supported", f"supported are {kinds}")


def in_precision(call: Call, dtype: torch.dtype) -> Call:
    """The same call of a network with weights of this dtype, partly or all, with float32 outside."""

    def called(network: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            return call(network, x, timestep, cond).float()

    return called


def call_unet(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``UNet2DModel``; cond: labels (B,) where it has classes."""
    return _means(network(x, timestep, class_labels=cond).sample, x)


def call_dit(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``DiTTransformer2DModel``; cond: labels (B,)."""
    return _means(network(x, timestep=timestep, class_labels=cond).sample, x)


def call_text_unet(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``UNet2DConditionModel``; cond: text embeddings (B,L,d)."""
    return _means(network(x, timestep, encoder_hidden_states=cond).sample, x)


def call_sdxl(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None, factor: int) -> Tensor:
    """``UNet2DConditionModel`` of SDXL: also pooled embeddings, and six sizes: original, crop, target, in pixels."""
    pooled = network.add_embedding.linear_1.in_features - 6 * network.config.addition_time_embed_dim
    width = network.config.cross_attention_dim
    text, pooled_text = unpack(cond, width, pooled)
    size = [factor * side for side in x.shape[-2:]]
    time_ids = text.new_tensor([*size, 0, 0, *size]).expand(len(x), -1)
    added = {"text_embeds": pooled_text, "time_ids": time_ids}
    return _means(network(x, timestep, encoder_hidden_states=text, added_cond_kwargs=added).sample, x)


def call_sd3(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``SD3Transformer2DModel``: text embeddings and pooled ones."""
    text, pooled = unpack(cond, network.config.joint_attention_dim, network.config.pooled_projection_dim)
    out = network(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=timestep)
    return _means(out.sample, x)


def pack(text: Tensor, pooled: Tensor) -> Tensor:
    """One tensor for text (B,L,d) and pooled (B,p) embeddings: (B,L+1,max(d,p)), the pooled ones last, zero-padded."""
    width = max(text.shape[-1], pooled.shape[-1])
    return torch.cat([pad(part, (0, width - part.shape[-1])) for part in (text, pooled[:, None])], 1)


def unpack(cond: Tensor | None, width: int, pooled: int) -> tuple[Tensor, Tensor]:
    """The inverse of ``pack``: text (B,L,width) and pooled (B,pooled)."""
    assert cond is not None
    return cond[:, :-1, :width], cond[:, -1, :pooled]


def _means(output: Tensor, x: Tensor) -> Tensor:
    return output[:, : x.shape[1]]  # what follows is a learned variance
