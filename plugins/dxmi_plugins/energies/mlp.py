"""A multilayer perceptron as an energy, for vectors or anything that can be flattened."""

from __future__ import annotations

from torch import Tensor, nn

from dxmi.api import ConfigError, Energy

from .activations import Activation, act
from .time import TimeEmbedding


class MLPEnergy(Energy):
    """Flatten, ``depth`` hidden layers of ``width``, linear. Reads its input size from the first batch.

    Args:
        width: units of a hidden layer
        depth: number of hidden layers
        time: whether it uses ``t``, as a separate value network must
        activation: of the hidden layers; a smooth one (silu, gelu, softplus, tanh) where samplers follow the gradient
    """

    def __init__(self, width: int = 128, depth: int = 2, time: bool = False, activation: Activation = "silu"):
        super().__init__()
        if width < 1 or depth < 1:
            raise ConfigError("mlp: width and depth are at least 1")
        self.stem = nn.LazyLinear(width)
        self.time = TimeEmbedding(width) if time else None
        hidden = [layer for _ in range(depth - 1) for layer in (act(activation), nn.Linear(width, width))]
        self.body = nn.Sequential(*hidden, act(activation), nn.Linear(width, 1))

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) -> (B,)."""
        h = self.stem(x.flatten(1))
        if self.time is not None:
            h = h + self.time(t, x)
        return self.body(h).squeeze(1)  # type: ignore[no-any-return]
