"""Heads: what critics learn on top of another network's features, all told a noise level or none."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, layer_norm, silu

from dxmi_plugins.energies.layers import NoiseEmbedding

Heads = Literal["plain", "pool", "conv"]


class PlainHead(nn.Sequential):
    """Mean and maximum of each block over its places, normalised, and one hidden layer. It is told no level."""

    def __init__(self, width: int):
        super().__init__(nn.LazyLinear(width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, found: list[Tensor], level: Tensor | None = None) -> Tensor:
        """Maps (B,C,H,W) or tokens (B,N,C) -> (B,)."""
        e: Tensor = super().forward(torch.cat([pooled(h) for h in found], 1))  # type: ignore[no-untyped-call]
        return e.squeeze(1)


class Told(nn.Module):
    """``h*(1 + w)``, w a linear map of the noise level's embedding; h itself where there is no level to be told."""

    def __init__(self, width: int, noised: bool):
        super().__init__()
        self.weigh = nn.Linear(width, width) if noised else None

    def forward(self, h: Tensor, e: Tensor | None) -> Tensor:
        """Features h (B,width,...), e (B,width) -> the same shape as h."""
        if self.weigh is None or e is None:
            return h
        w = self.weigh(silu(e))
        return h * (1 + w.reshape(*w.shape, *[1] * (h.ndim - 2)))  # type: ignore[no-any-return]


class PoolHead(nn.Module):
    """Each block normalised, mapped to ``width`` channels, and its mean over places; all in one hidden layer."""

    def __init__(self, blocks: int, width: int, noised: bool):
        super().__init__()
        self.squeeze = nn.ModuleList(nn.LazyConv2d(width, 1) for _ in range(blocks))
        self.hidden, self.told, self.out = nn.Linear(blocks * width, width), Told(width, noised), nn.Linear(width, 1)

    def forward(self, maps: list[Tensor], e: Tensor | None = None) -> Tensor:
        """Maps (B,C,H,W), one a block, e (B,width) -> (B,)."""
        means = [silu(f(grouped(h))).mean((2, 3)) for f, h in zip(self.squeeze, maps, strict=True)]
        h = silu(self.hidden(torch.cat(means, 1)))
        return self.out(self.told(h, e)).squeeze(1)  # type: ignore[no-any-return]


class PatchHead(nn.Module):
    """One number for each place of a block, from its neighbourhood, and their mean (Isola et al. 2017; LADD)."""

    def __init__(self, width: int, noised: bool):
        super().__init__()
        self.squeeze, self.conv = nn.LazyConv2d(width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.told, self.out = Told(width, noised), nn.Conv2d(width, 1, 1)

    def forward(self, h: Tensor, e: Tensor | None = None) -> Tensor:
        """A map (B,C,H,W), e (B,width) -> (B,)."""
        h = self.told(silu(self.squeeze(grouped(h))), e)
        return self.out(silu(self.conv(h))).mean((1, 2, 3))  # type: ignore[no-any-return]


class CriticHead(nn.Module):
    """The sum of what learns on the maps of some blocks: one ``PoolHead`` for all, a ``PatchHead`` for each, or both.

    Args:
        blocks: how many maps there are
        width: channels that each is mapped to
        noised: whether it is told a noise level
        pool: whether there is a ``PoolHead``
        conv: whether there are ``PatchHead``s
    """

    def __init__(self, blocks: int, width: int, noised: bool, pool: bool = True, conv: bool = True):
        super().__init__()
        self.embedding = NoiseEmbedding(width) if noised else None
        self.pool = PoolHead(blocks, width, noised) if pool else None
        self.patches = nn.ModuleList(PatchHead(width, noised) for _ in range(blocks if conv else 0))

    def forward(self, maps: list[Tensor], level: Tensor | None = None) -> Tensor:
        """Maps (B,C,H,W), level (B,) in [0, 1000] or None for clean -> (B,)."""
        e = None if self.embedding is None else self.embedding(level, maps[0])
        found = [] if self.pool is None else [self.pool(maps, e)]
        found += [patch(h, e) for patch, h in zip(self.patches, maps, strict=bool(self.patches))]
        return torch.stack(found).sum(0)


def pooled(h: Tensor) -> Tensor:
    """Mean and maximum over the places of a map (B,C,H,W) or tokens (B,N,C), at one scale: (B,2C)."""
    places = h.flatten(2) if h.ndim == 4 else h.mT
    both = torch.cat([places.mean(2), places.amax(2)], 1)
    return layer_norm(both, both.shape[1:])


def grouped(h: Tensor) -> Tensor:
    """A map (B,C,H,W) with its channels normalised in at most 8 groups, of two or more where that is possible.

    So one scale suits all blocks; what the maps' own scale and shift would add, the layer that follows has.
    """
    channels = h.shape[1]
    groups = next(g for g in range(min(8, max(1, channels // 2)), 0, -1) if channels % g == 0)
    return group_norm(h, groups)
