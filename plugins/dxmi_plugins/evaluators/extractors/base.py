"""Feature extractors: what turns uint8 images into the features and logits that metrics read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn


class Extractor(ABC):
    """uint8 (B,channels,H,W) -> features (B,dimension) and, where it has any, logits (B,logits). Loaded on first use.

    A deterministic function of its weights and the pixels; it runs on the GPU if there is one.
    """

    name: str
    """what its distances are called after"""
    resize: str
    """how images come to the size it reads"""
    library: str
    """what runs it and which version, such as ``torch-fidelity 0.4.0``"""
    channels: int = 3
    dimension: int
    """D"""
    logits: int | None = None
    """how many; None without"""
    labelled: bool = False
    """whether logit k stands for label k of the data, so that it can judge labels"""

    @property
    @abstractmethod
    def sha256(self) -> str | None:
        """Hex digest of its weights; None while they are not here."""

    @abstractmethod
    def load(self) -> nn.Module:
        """Its network.

        Raises:
            ConfigError: its weights are missing, or are others
        """

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation, on its device."""
        with torch.random.fork_rng():  # networks are initialised before they are loaded: leave the run's noise alone
            network = self.load()
        return network.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")

    def ready(self) -> None:
        """Load all of it now.

        Raises:
            ConfigError: its weights are missing, or are others
        """
        _ = self.network

    def stamp(self) -> dict[str, str | None]:
        """All that its features depend on beside the pixels."""
        return {"name": self.name, "weights_sha256": self.sha256, "resize": self.resize, "library": self.library}

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels uint8 (B,C,H,W) in 0..255 -> features (B,D) float, logits (B,K) or None."""
        outputs = self.network(pixels.to(self.device))
        return outputs[0].float(), outputs[1].float() if self.logits is not None else None


def as_pixels(images: Tensor, extractor: Extractor) -> Tensor:
    """Images (B,C,H,W) in [-1, 1] -> uint8 (B,channels,H,W), clamped and rounded; grey is repeated for colour."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.expand(-1, extractor.channels, -1, -1) if pixels.shape[1] == 1 else pixels
