"""Random Fourier features: what lets a perceptron see detail finer than its input's scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, is_lazy

from dxmi.api import ConfigError


class FourierFeatures(LazyModuleMixin, nn.Module):  # type: ignore[misc]
    """X (B,D) -> x, sin(Wx) and cos(Wx), (B,D+2*count), with a fixed W of N(0, bandwidth^2) (Tancik et al. 2020).

    Perceptrons learn what varies slowly first (their spectral bias): eight modes on a circle stay one ring to them.
    Reads D from the first batch, unless it is told as ``inputs``.
    """

    def __init__(self, count: int, bandwidth: float, inputs: int | None = None):
        super().__init__()
        self.count, self.bandwidth = count, bandwidth
        self.weight = UninitializedBuffer()
        if inputs is not None:
            self(torch.zeros(1, inputs))

    def initialize_parameters(self, x: Tensor) -> None:
        """Draw W."""
        if is_lazy(self.weight):
            self.weight.materialize((self.count, x.shape[1]))
            with torch.no_grad():
                self.weight.normal_(std=self.bandwidth)

    def forward(self, x: Tensor) -> Tensor:
        """X (B,D) -> (B,D+2*count)."""
        angles = x @ self.weight.T.to(x)
        return torch.cat([x, angles.sin(), angles.cos()], 1)


def features(count: int, bandwidth: float, inputs: int | None = None) -> nn.Module:
    """That many of them, or none.

    Raises:
        ConfigError: the number is negative or the bandwidth not positive and finite
    """
    if count < 0:
        raise ConfigError(f"frequencies: {count} is negative; 0 for none")
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise ConfigError(f"bandwidth: {bandwidth} is not positive and finite")
    return FourierFeatures(count, bandwidth, inputs) if count else nn.Identity()
