"""Layers that energies share: activations by name, Fourier features, scales, the time argument."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, is_lazy

from dxmi.api import ConfigError
from dxmi.api.noise import per_row

Activation = Literal["silu", "gelu", "softplus", "tanh", "elu", "relu", "leaky_relu"]
Time = bool | Literal["noise"]
"""whether a network is told t: a step, or as ``noise`` a noise level"""


MODULES: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "relu": nn.ReLU,
}


def act(name: Activation) -> nn.Module:
    """A fresh module; leaky_relu has the slope 0.2 of the paper's network.

    Raises:
        ConfigError: there is no such activation
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(0.2)
    if name not in MODULES:
        raise ConfigError("activation", f"'{name}' is none of {', '.join(MODULES)}, leaky_relu")
    return MODULES[name]()


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
        raise ConfigError("frequencies", f"{count} is negative", "0 for none")
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise ConfigError("bandwidth", f"{bandwidth} is not positive and finite")
    return FourierFeatures(count, bandwidth, inputs) if count else nn.Identity()


class Scales(nn.Module):
    """``x/start`` and ``asinh(x/r_t)``, where r_t goes from ``start`` to ``finest`` geometrically.

    The first shows the state as a whole; the second, a logarithm with a sign, what is much smaller than it. So one
    network sees the wide and the narrow parts of a density alike.
    """

    def __init__(self, steps: int, start: float, finest: float):
        super().__init__()
        if not 0 < finest <= start < math.inf:
            raise ConfigError("finest", f"{finest} is not positive and at most start, {start}")
        self.start = start
        self.range: Tensor
        self.register_buffer("range", torch.logspace(math.log10(start), math.log10(finest), steps), persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """X (B,*S), t (B,) -> (B,*S,2)."""
        fine = per_row(self.range[t], x)
        return torch.stack([x / self.start, torch.asinh(x / fine)], -1)


class TimeEmbedding(nn.Module):
    """Sines and cosines of the step, then a linear map: t (B,) integer -> (B,width)."""

    def __init__(self, width: int, frequencies: int = 16):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(-math.log(1e3) * torch.arange(frequencies) / frequencies))
        self.linear = nn.Linear(2 * frequencies, width)

    def forward(self, t: Tensor | None, like: Tensor) -> Tensor:
        """Raises ConfigError without a time: an energy learned with ``time: true`` is a value."""
        if t is None:
            raise ConfigError("this network was built with time", "true and needs a time t")
        angles = t.to(like.dtype)[:, None] * self.frequencies
        return self.linear(torch.cat([angles.sin(), angles.cos()], 1))  # type: ignore[no-any-return]


class NoiseEmbedding(nn.Module):
    """Sines and cosines of a noise level, then a perceptron: t (B,) in [0, 1000], None for clean -> (B,width)."""

    def __init__(self, width: int, frequencies: int = 16):
        super().__init__()
        self.frequencies: Tensor
        scales = torch.exp(-math.log(1e4) * torch.arange(frequencies) / frequencies)
        self.register_buffer("frequencies", scales, persistent=False)
        self.body = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor | None, like: Tensor) -> Tensor:
        """T (B,) or None, of states like (B,*S) -> (B,width)."""
        level = like.new_zeros(len(like)) if t is None else t.to(like.dtype)
        angles = level[:, None] * self.frequencies
        return self.body(torch.cat([angles.sin(), angles.cos()], 1))  # type: ignore[no-any-return]


def time_embedding(time: Time, width: int) -> TimeEmbedding | NoiseEmbedding | None:
    """What a network makes of its t; None where it is told none."""
    if time == "noise":
        return NoiseEmbedding(width)
    return TimeEmbedding(width) if time else None
