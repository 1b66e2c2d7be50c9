"""The paper's convolutional energy (MATH 3): a residual network without normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dxmi.api import ConfigError, Energy
from dxmi_plugins.energies.conditioning import projection
from dxmi_plugins.energies.layers import Activation, Time, act, time_embedding


class ResidualBlock(nn.Module):
    """act-conv-act-conv plus a shortcut, then average pooling by 2 if asked and possible: (B,C,H,W) -> (B,C',H',W')."""

    def __init__(self, channels_in: int, channels_out: int, pool: bool, activation: Activation = "leaky_relu"):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.pool, self.act = pool, act(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',H',W')."""
        h = self.conv2(self.act(self.conv1(self.act(x)))) + self.shortcut(x)
        return F.avg_pool2d(h, 2) if self.pool and min(h.shape[-2:]) > 1 else h


class ConvEnergy(Energy):
    """3x3 stem, residual blocks with halving in every other one, global **sum** pool, linear, learned scale and bias.

    Any channels (read from the first batch) and any image size. The paper's network is ``width=128, blocks=6``.

    Args:
        width: channels of the first third of the blocks; the others have twice as many
        blocks: number of residual blocks
        time: whether it uses ``t``, as a separate value network must; noise where t is no step but how noisy x is, in
            [0, 1000] (``reads_noise``)
        activation: of the blocks and before the pool; leaky_relu, the paper's, has the slope 0.2. A smooth one (silu,
            gelu, softplus) where samplers follow the gradient
        classes: number of classes where the conditions are labels, whose embeddings' inner product with the pooled
            features is added (Miyato and Koyama 2018); 0 looks at none
        text: whether the conditions are text embeddings; they are added alike

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        width: int = 128,
        blocks: int = 6,
        time: Time = False,
        activation: Activation = "leaky_relu",
        classes: int = 0,
        text: bool = False,
    ):
        super().__init__()
        if width < 1 or blocks < 1:
            raise ConfigError("conv", "width and blocks are at least 1")
        widths = [width if k < max(1, blocks // 3) else 2 * width for k in range(blocks)]
        self.stem = nn.LazyConv2d(width, 3, padding=1)
        self.time = time_embedding(time, width)
        self.reads_noise = time == "noise"
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(i, o, k % 2 == 0, activation)
                for k, (i, o) in enumerate(zip([width, *widths], widths, strict=False))
            )
        )
        self.act = act(activation)
        self.linear = nn.Linear(widths[-1], 1)
        self.projection = projection(classes, text, widths[-1])
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,C,H,W), t (B,), cond (B,) labels or (B,L,d) embeddings -> (B,)."""
        h = self.stem(x)
        if self.time is not None:
            h = h + self.time(t, x)[:, :, None, None]
        h = self.act(self.blocks(h)).sum((2, 3))
        e: Tensor = self.linear(h).squeeze(1)
        if self.projection is not None:
            e = e + self.projection(cond, h)
        return self.scale * e + self.bias
