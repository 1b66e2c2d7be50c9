"""The teacher's own encoder under a small head, the discriminator of DMD2 and LADD."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dxmi.api import ConfigError, Energy
from dxmi.api.noise import per_row
from dxmi.pipelines import keep_what_learns
from dxmi_plugins.energies.encoder import (
    Enough,
    NoiseClock,
    as_maps,
    blocks_of,
    cut,
    stem_of,
    stream_count,
    streams,
    twice_differentiable,
)
from dxmi_plugins.energies.heads import CriticHead, Heads, PlainHead
from dxmi_plugins.teachers.teacher import load_teacher


class TeacherFeatures(Energy):
    """A small head on what the teacher's first blocks make of x (DMD2, arXiv 2405.14867; LADD, arXiv 2403.12015).

    The network sees ``alpha*x`` at the timestep of its cleanest noise level, and the condition; with ``noised`` it sees
    states at any noise level of the teacher as they are, at the timestep of that level (MATH 3.7). The pass ends at the
    last of the blocks; what comes after it is not kept. It lives in the teacher's own space, as the sampler does.

    Args:
        teacher: a diffusers pipeline, of any kind that the sampler ``diffusion`` takes: a folder or a hub id
        tune: whether the blocks learn too; otherwise the head alone, which is then all that is saved: the blocks are
            read from the teacher again
        width: units of the head's hidden layer
        blocks: how many blocks, from the input on; null takes a UNet's down blocks and its middle, and the first half
            of a transformer
        trust_remote_code: whether to run code that comes with the teacher
        noised: whether t says how noisy x is, as the teacher's noising makes it: a noise level in [0, 1000], 0 clean
        heads: plain sees mean and maximum of each block; pool maps each block, and before them a UNet's first
            convolution, to ``width`` channels and takes the mean; conv adds to that a number for each place of each
            block; null is pool with ``noised`` and plain without

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
        noised: bool = False,
        heads: Heads | None = None,
    ):
        super().__init__()
        if width < 1:
            raise ConfigError("width", f"{width} is not positive")
        loaded = load_teacher(teacher, trust_remote_code)
        self.call, self.shape, self.reads_noise = loaded.call, loaded.shape, noised
        self.told = loaded.conditions.text or loaded.conditions.classes is not None
        self.network = loaded.network.eval().requires_grad_(tune)
        cut(self.network, blocks)
        if not tune:
            keep_what_learns(self.network)
        heads = heads or ("pool" if noised else "plain")
        self.plain = heads == "plain"
        count = sum(map(stream_count, self.taps()))
        self.head = PlainHead(width) if self.plain else CriticHead(count, width, noised, conv=heads == "conv")
        self.clock = NoiseClock(loaded.levels)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,C,H,W) in the teacher's space, t (B,) its noise level, cond (B,...) as the sampler makes it -> (B,).

        Without ``noised`` x is clean, and t unused.

        Raises:
            ConfigError: x is not of the teacher's shape, or the teacher draws from labels or text and there are none
        """
        if x.shape[1:] != self.shape:
            given, own = tuple(x.shape[1:]), tuple(self.shape)
            raise ConfigError("teacher", f"its states are (C,H,W) {own}, not {given}", "name the sampler's own teacher")
        if self.told and cond is None:
            raise ConfigError("teacher", "it draws from labels or text", "this energy needs them as conditions")
        level = t if self.reads_noise else None
        return self.head(self.features(x, cond, level), level)  # type: ignore[no-any-return]

    def taps(self) -> list[nn.Module]:
        """The parts of the network whose outputs the head sees, in their order."""
        return [*([] if self.plain else stem_of(self.network)), *blocks_of(self.network)]

    def features(self, x: Tensor, cond: Tensor | None = None, level: Tensor | None = None) -> list[Tensor]:
        """What the taps return: maps (B,C,H,W), or for a plain head, as they are, maps or tokens (B,N,C)."""
        found: list[Tensor] = []

        def keep(block: nn.Module, inputs: Any, output: Any) -> None:
            found.extend(streams(output) if self.plain else as_maps(streams(output), x))
            if block is taps[-1]:
                raise Enough

        taps = self.taps()
        timestep, scale = self.clock(x.new_zeros(len(x)) if level is None else level)
        handles = [tap.register_forward_hook(keep) for tap in taps]
        try:
            with twice_differentiable(x):
                self.call(self.network, per_row(scale, x) * x, timestep, cond)
        except Enough:
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
