"""UNets on pixels, unconditional or told classes: DDPM and its like, EDM's networks, score networks.

Which of these one is, its scheduler says (``levels.py``); nothing else of it differs.
"""

from __future__ import annotations

from typing import Any

from diffusers import ConsistencyModelPipeline, DDPMPipeline, UNet2DModel
from torch import Tensor

from dxmi.api import Conditions, NetworkCall
from dxmi_plugins.teachers.conditions import labels_or_none
from dxmi_plugins.teachers.family import Family
from dxmi_plugins.teachers.networks import means
from dxmi_plugins.teachers.spaces import autoencoder


class UNet(Family):
    """Pipelines of a ``UNet2DModel`` without an autoencoder."""

    pipelines = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "ConsistencyModelPipeline")
    part = "unet"
    networks = "UNet2DModel"

    def takes(self, pipeline: Any) -> bool:
        """Whether these are its parts."""
        return is_plain(getattr(pipeline, "unet", None)) and autoencoder(pipeline) is None

    def call(self, pipeline: Any) -> NetworkCall:
        """With labels where there are classes."""
        return call

    def conditions(self, pipeline: Any) -> Conditions:
        """Labels, where there are classes."""
        return labels_or_none(pipeline.unet)

    def student(self, pipeline: Any, network: Any, scheduler: Any) -> Any:
        """Of the class that passes what they need: ``ConsistencyModelPipeline`` scales its start and passes labels.

        ``DDPMPipeline`` does neither.
        """
        scaled = scheduler.init_noise_sigma != 1 or self.conditions(pipeline).classes is not None
        return (ConsistencyModelPipeline if scaled else DDPMPipeline)(unet=network, scheduler=scheduler)


def is_plain(network: Any) -> bool:
    """Whether it is a ``UNet2DModel`` that embeds classes, if at all, by a table."""
    return isinstance(network, UNet2DModel) and network.config.class_embed_type is None


def call(network: Any, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """``UNet2DModel``; cond: labels (B,) where it has classes."""
    return means(network(x, timestep, class_labels=cond).sample, x)
