"""UNets on the latents of an autoencoder, KL or VQ (Rombach et al. 2022, arXiv:2112.10752), without text."""

from __future__ import annotations

from typing import Any

from dxmi.api import Conditions, NetworkCall
from dxmi_plugins.teachers.conditions import labels_or_none
from dxmi_plugins.teachers.family import Family
from dxmi_plugins.teachers.spaces import autoencoder
from dxmi_plugins.teachers.unet import call, is_plain


class LatentDiffusion(Family):
    """Pipelines of a ``UNet2DModel`` and an autoencoder."""

    pipelines = ("LDMPipeline",)
    part = "unet"
    networks = "UNet2DModel"

    def takes(self, pipeline: Any) -> bool:
        """Whether these are its parts."""
        return is_plain(getattr(pipeline, "unet", None)) and autoencoder(pipeline) is not None

    def call(self, pipeline: Any) -> NetworkCall:
        """With labels where there are classes."""
        return call

    def conditions(self, pipeline: Any) -> Conditions:
        """Labels, where there are classes."""
        return labels_or_none(pipeline.unet)
