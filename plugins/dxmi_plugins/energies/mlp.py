"""A multilayer perceptron as an energy, for vectors or anything that can be flattened."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dxmi.api import ConfigError, Energy
from dxmi_plugins.energies.conditioning import projection
from dxmi_plugins.energies.layers import Activation, Time, act, features, time_embedding


class MLPEnergy(Energy):
    """Flatten, ``depth`` hidden layers of ``width``, linear. Reads its input size from the first batch.

    Args:
        width: units of a hidden layer
        depth: number of hidden layers
        time: whether it uses ``t``, as a separate value network must; noise where t is no step but how noisy x is, in
            [0, 1000] (``reads_noise``)
        frequencies: number of random Fourier features seen beside the input; 0 for none, 32 for modes far narrower than
            the distances between them
        bandwidth: std of those frequencies, in radians a unit of the input: about one over the finest distance
        prior: std of a Gaussian whose energy ``||x||^2/(2*prior^2)`` is added and is all there is before it learns, so
            that samplers do not run away; null for none
        activation: of the hidden layers; a smooth one (silu, gelu, softplus, tanh) where samplers follow the gradient
        classes: number of classes where the conditions are labels, whose embeddings' inner product with the last hidden
            layer is added (Miyato and Koyama 2018); 0 looks at none
        text: whether the conditions are text embeddings; they are added alike

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        time: Time = False,
        activation: Activation = "silu",
        frequencies: int = 0,
        bandwidth: float = 1.0,
        prior: float | None = None,
        classes: int = 0,
        text: bool = False,
    ):
        super().__init__()
        for key, given in {"width": width, "depth": depth}.items():
            if given < 1:
                raise ConfigError(key, f"{given} is not positive")
        if prior is not None and not (prior > 0 and math.isfinite(prior)):
            raise ConfigError("prior", f"{prior} is not positive and finite", "null adds none")
        self.prior = prior
        self.features = features(frequencies, bandwidth)
        self.stem = nn.LazyLinear(width)
        self.time = time_embedding(time, width)
        self.reads_noise = time == "noise"
        hidden = [layer for _ in range(depth - 1) for layer in (act(activation), nn.Linear(width, width))]
        self.body = nn.Sequential(*hidden, act(activation), nn.Linear(width, 1))
        self.projection = projection(classes, text, width)
        for p in () if prior is None else self.body[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,), cond (B,) labels or (B,L,d) embeddings -> (B,)."""
        h = self.stem(self.features(x.flatten(1)))
        if self.time is not None:
            h = h + self.time(t, x)
        last = h
        for layer in self.body:
            last, h = h, layer(h)
        f: Tensor = h.squeeze(1)
        if self.projection is not None:
            f = f + self.projection(cond, last)
        return f if self.prior is None else f + x.square().flatten(1).sum(1) / (2 * self.prior**2)
