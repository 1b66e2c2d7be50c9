"""What energies add for a condition: labels or text embeddings, by projection (Miyato and Koyama 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dxmi.api import ConfigError


class Projection(nn.Module):
    """``<e(y), h>``, the inner product of a condition's embedding and an event's features: 0 until it learns."""

    def pair(self, e: Tensor, h: Tensor) -> Tensor:
        """E, h (B,width) -> (B,)."""
        return (e.to(h) * h).sum(1)


class LabelProjection(Projection):
    """``e(y)`` is a row of a table: y (B,) long in 0..classes-1."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.table = nn.Embedding(classes, width)
        nn.init.zeros_(self.table.weight)

    def forward(self, cond: Tensor | None, h: Tensor) -> Tensor:
        """Cond (B,) long, h (B,width) -> (B,).

        Raises:
            ConfigError: the conditions are no labels, or out of range
        """
        if cond is None or cond.ndim != 1 or cond.is_floating_point():
            raise ConfigError(
                "classes", f"the energy asks for labels (B,), not {told(cond)}", "0 for an energy without"
            )
        classes = self.table.num_embeddings
        if bool(((cond < 0) | (cond >= classes)).any()):
            raise ConfigError("classes", f"labels {int(cond.min())}..{int(cond.max())} are not all in 0..{classes - 1}")
        return self.pair(self.table(cond), h)


class TextProjection(Projection):
    """``e(y)`` is a small perceptron of the mean and the maximum of a text's embeddings (B,L,d) over L.

    Reads d from the first batch.
    """

    def __init__(self, width: int):
        super().__init__()
        self.stem, self.head = nn.LazyLinear(width), nn.Linear(width, width)
        for p in self.head.parameters():
            nn.init.zeros_(p)

    def forward(self, cond: Tensor | None, h: Tensor) -> Tensor:
        """Cond (B,L,d), h (B,width) -> (B,).

        Raises:
            ConfigError: the conditions are no text embeddings
        """
        if cond is None or cond.ndim != 3:
            raise ConfigError(
                "text", f"the energy asks for embeddings (B,L,d), not {told(cond)}", "false for one without"
            )
        pooled = torch.cat([cond.mean(1), cond.amax(1)], 1).to(h)
        return self.pair(self.head(nn.functional.silu(self.stem(pooled))), h)


def told(cond: Tensor | None) -> str:
    """A condition in words."""
    return "none" if cond is None else f"{str(cond.dtype).removeprefix('torch.')} {tuple(cond.shape)}"


def projection(classes: int, text: bool, width: int) -> LabelProjection | TextProjection | None:
    """What the options ask for; None where they ask for nothing.

    Raises:
        ConfigError: the number of classes is negative, or both are asked for
    """
    if classes < 0:
        raise ConfigError("classes", f"{classes} is negative", "0 for none")
    if classes and text:
        raise ConfigError("classes", "a condition is labels or text, not both", "leave classes or text out")
    if text:
        return TextProjection(width)
    return LabelProjection(classes, width) if classes else None
