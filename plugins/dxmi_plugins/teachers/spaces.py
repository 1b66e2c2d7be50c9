"""Where a teacher's states live: pixels, or the latents of an autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor

from dxmi.api import ConfigError, Space

PART = 16  # images that an autoencoder takes at once: it needs far more memory an image than the network


class Pixels:
    """The images themselves."""

    factor = 1
    parts: list[Any] = []

    def encode(self, images: Tensor) -> Tensor:
        """The same images."""
        return images

    def decode(self, x: Tensor) -> Tensor:
        """The same images."""
        return x

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape."""
        return shape


class Latents:
    """The scaled latents of a frozen autoencoder: the means of a KL one, what a VQ one has not yet quantised."""

    def __init__(self, vae: Any):
        self.vae = vae.eval().requires_grad_(False)
        self.parts = [vae]
        config = vae.config
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        mean, std = (config.get(key) for key in ("latents_mean", "latents_std"))
        shift = mean if mean is not None and std is not None else [config.get("shift_factor") or 0.0]
        scale = std if mean is not None and std is not None else [1.0]
        self.shift = torch.tensor(shift).reshape(-1, 1, 1)
        self.scale = config.scaling_factor / torch.tensor(scale).reshape(-1, 1, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``(z - shift)*scale``, z the mean (KL) or the encoder's output (VQ)."""
        self.vae.to(images.device)
        coded = [self.vae.encode(part.to(self.vae.dtype)) for part in torch.split(images, PART)]
        kl = isinstance(self.vae, AutoencoderKL)
        z = torch.cat([out.latent_dist.mode() if kl else out.latents for out in coded]).to(images)
        return (z - self.shift.to(z)) * self.scale.to(z)  # type: ignore[no-any-return]

    def decode(self, x: Tensor) -> Tensor:
        """The autoencoder's images of ``x/scale + shift``."""
        self.vae.to(x.device)
        z = (x / self.scale.to(x) + self.shift.to(x)).to(self.vae.dtype)
        images: Tensor = torch.cat([self.vae.decode(part).sample for part in torch.split(z, PART)])
        return images.to(x)  # type: ignore[no-any-return]

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The autoencoder's channels, and sides ``factor`` times as long."""
        return (self.vae.config.in_channels, *(self.factor * side for side in shape[1:]))


def space_of(pipeline: Any) -> Space:
    """The space of a pipeline's states.

    Raises:
        ConfigError: its autoencoder is of a kind that is not supported
    """
    vae = autoencoder(pipeline)
    if vae is None:
        return Pixels()
    if not isinstance(vae, AutoencoderKL | VQModel):
        raise ConfigError("teacher", f"its {type(vae).__name__} is not supported", "AutoencoderKL and VQModel are")
    return Latents(vae)


def autoencoder(pipeline: Any) -> Any:
    """The autoencoder among a pipeline's parts, or None."""
    return getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
