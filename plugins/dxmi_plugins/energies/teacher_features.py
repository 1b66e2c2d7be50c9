"""The teacher's own encoder under a small head, the discriminator of DMD2 and LADD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from dxmi.api import ConfigError, Energy
from dxmi.pipelines import keep_what_learns
from dxmi_plugins.teachers.teacher import load_teacher

DECODER = ("up_blocks", "conv_norm_out", "conv_out", "norm_out", "proj_out", "proj_out_1", "proj_out_2")


class TeacherFeatures(Energy):
    """A perceptron of what the teacher's first blocks make of x (DMD2, arXiv 2405.14867; LADD, arXiv 2403.12015).

    The network sees ``alpha*x`` at the timestep of its cleanest noise level, and the condition. Of each block's output
    the mean and the maximum over all places are normalised and shown to one hidden layer. The pass ends at the last of
    the blocks; what comes after it is not kept. It lives in the teacher's own space, as the sampler does.

    Args:
        teacher: a diffusers pipeline, of any kind that the sampler ``diffusion`` takes: a folder or a hub id
        tune: whether the blocks learn too; otherwise the head alone, which is then all that is saved: the blocks are
            read from the teacher again
        width: units of the head's hidden layer
        blocks: how many blocks, from the input on; null takes a UNet's down blocks and its middle, and the first half
            of a transformer
        trust_remote_code: whether to run code that comes with the teacher

    Raises:
        ConfigError: the teacher is refused, or an option is out of its range
    """

    def __init__(
        self,
        teacher: str,
        tune: bool = False,
        width: int = 64,
        blocks: int | None = None,
        trust_remote_code: bool = False,
    ):
        super().__init__()
        if width < 1:
            raise ConfigError("width", f"{width} is not positive")
        loaded = load_teacher(teacher, trust_remote_code)
        self.call = loaded.call
        self.told = loaded.conditions.text or loaded.conditions.classes is not None
        self.network = loaded.network.eval().requires_grad_(tune)
        cut(self.network, blocks)
        if not tune:
            keep_what_learns(self.network)
        self.head = nn.Sequential(nn.LazyLinear(width), nn.SiLU(), nn.Linear(width, 1))
        cleanest = loaded.levels.timesteps[0]
        self.alpha = float(loaded.levels.alphas[0])
        self.timestep: Tensor
        self.register_buffer("timestep", cleanest.float() if cleanest.is_floating_point() else cleanest.clone(), False)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,C,H,W) in the teacher's space, cond (B,...) as the sampler ``diffusion`` makes it -> (B,).

        Raises:
            ConfigError: the teacher draws from labels or text, and there is no condition
        """
        if self.told and cond is None:
            raise ConfigError("teacher", "it draws from labels or text", "this energy needs them as conditions")
        return self.head(torch.cat([normalised(h) for h in self.features(x, cond)], 1)).squeeze(1)  # type: ignore[no-any-return]

    def features(self, x: Tensor, cond: Tensor | None = None) -> list[Tensor]:
        """What the blocks return, in their order: maps (B,C,H,W) or tokens (B,N,C)."""
        found: list[Tensor] = []

        def keep(block: nn.Module, inputs: Any, output: Any) -> None:
            found.extend(streams(output))
            if block is stack[-1]:
                raise _Enough

        stack = blocks_of(self.network)
        handles = [block.register_forward_hook(keep) for block in stack]
        try:
            self.call(self.network, self.alpha * x, self.timestep.expand(len(x)), cond)
        except _Enough:
            return found
        finally:
            for handle in handles:
                handle.remove()
        raise RuntimeError(f"{type(self.network).__name__} did not run its own blocks")

    def train(self, mode: bool = True) -> TeacherFeatures:
        """The network stays without dropout: an energy has one value."""
        super().train(mode)
        self.network.eval()
        return self


class _Enough(Exception):
    """Ends the network's pass."""


def blocks_of(network: Any) -> list[nn.Module]:
    """The blocks from the input on: a UNet's way down and its middle, or a transformer's."""
    if hasattr(network, "transformer_blocks"):
        return list(network.transformer_blocks)
    return [*network.down_blocks, *filter(None, [network.mid_block])]


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
    """The tensors of a block's output that go on to the next block: the image's, and the text's in SD3.

    UNets' down blocks return those for the decoder too, in a tuple, which is left aside.
    """
    parts = output if isinstance(output, tuple) else (output,)
    return [part for part in parts if isinstance(part, Tensor)]


def normalised(h: Tensor) -> Tensor:
    """Mean and maximum over the places of a map (B,C,H,W) or tokens (B,N,C), at one scale: (B,2C)."""
    places = h.flatten(2) if h.ndim == 4 else h.mT
    pooled = torch.cat([places.mean(2), places.amax(2)], 1)
    return layer_norm(pooled, pooled.shape[1:])
