"""The first blocks of a teacher's network, and how they are told noise levels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dxmi.api import ConfigError, Levels
from dxmi_plugins.teachers.noise_table import NoiseTable

DECODER = ("up_blocks", "conv_norm_out", "conv_out", "norm_out", "proj_out", "proj_out_1", "proj_out_2")


class NoiseClock(NoiseTable):
    """What a teacher's network is told of a noise level, and what states are multiplied by to be what it knows.

    Clean states are shown as ``alpha*x`` at the cleanest level that it knows; others are as they should be already.
    """

    scales: Tensor
    """(N+1,) alpha of the cleanest level at clean states, 1 at the others"""

    def __init__(self, levels: Levels):
        super().__init__(levels)
        scales = torch.cat([levels.alphas[:1].float(), torch.ones(len(levels.alphas))])
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Level (B,) in [0, 1000] -> timestep, scale (B,)."""
        level = level.to(self.known)
        return self.timestep(level), self.between(self.scales, level)


class Enough(Exception):
    """Ends the network's pass."""


def blocks_of(network: Any) -> list[nn.Module]:
    """The blocks from the input on: a UNet's way down and its middle, or a transformer's."""
    if hasattr(network, "transformer_blocks"):
        return list(network.transformer_blocks)
    return [*network.down_blocks, *filter(None, [network.mid_block])]


def stem_of(network: Any) -> list[nn.Module]:
    """What comes before a UNet's blocks and sees the full resolution; a transformer's tokens say no more than x."""
    return [] if hasattr(network, "transformer_blocks") else [network.conv_in]


def cut(network: Any, count: int | None) -> None:
    """Take everything after that many blocks out of the network.

    So nothing is kept or copied that no energy depends on, and no process waits for its gradient.

    Raises:
        ConfigError: there are not so many
    """
    stack, transformer = blocks_of(network), hasattr(network, "transformer_blocks")
    count = count if count is not None else (len(stack) + 1) // 2 if transformer else len(stack)
    if not 1 <= count <= len(stack):
        raise ConfigError("blocks", f"{count} is not in 1..{len(stack)}, the blocks that this teacher has to offer")
    kept = stack[:count]
    if transformer:
        network.transformer_blocks = nn.ModuleList(kept)
    else:
        network.down_blocks = nn.ModuleList(block for block in kept if block is not network.mid_block)
        network.mid_block = network.mid_block if network.mid_block in kept else None
    for name in DECODER:
        if hasattr(network, name):
            setattr(network, name, None)


def streams(output: Any) -> list[Tensor]:
    """The tensors of a block's output that go on to the next block: the text's in SD3, and the image's, the last.

    UNets' down blocks return those for the decoder too, in a tuple, which is left aside.
    """
    parts = output if isinstance(output, tuple) else (output,)
    return [part for part in parts if isinstance(part, Tensor)]


def stream_count(block: nn.Module) -> int:
    """How many ``streams`` its output has: two where text and image attend to each other and both go on."""
    return 1 if getattr(block, "context_pre_only", True) else 2


def as_maps(found: list[Tensor], like: Tensor) -> list[Tensor]:
    """A block's ``streams``, of states like (B,C',H,W), as maps (B,C,h,w).

    The image's tokens (B,N,C) lie row by row in the proportions of the states; the text's become one column.
    """
    *texts, image = found
    if image.ndim == 3:
        rows = round((image.shape[1] * like.shape[2] / like.shape[3]) ** 0.5)
        image = image.mT.reshape(len(image), image.shape[2], rows, -1)
    return [*(text.mT[..., None] for text in texts), image]


def twice_differentiable(x: Tensor) -> AbstractContextManager[None]:
    """Attention without the fused kernels, which have no second derivative, where x is a leaf that needs its gradient.

    That is how gradient penalties ask (``game.r1``); a sampler that learns through the energy is no leaf, and keeps
    the kernels and their memory.
    """
    return sdpa_kernel(SDPBackend.MATH) if x.requires_grad and x.is_leaf else nullcontext()
