"""What the updates of a round share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dxmi.api import Cost


@dataclass
class State:
    """What the updates of a round share, and what they leave to the next one."""

    J: Cost = field(init=False)
    """the cost to go, of this round's conditions"""
    xs: Tensor = field(init=False)
    """(T+1,B,*S) rollout; of a chain that cannot learn the samples alone, (1,B,*S)"""
    data: Tensor | None = None
    """(B,*S) batch in the sampler's space; None for a known density"""
    cond: Tensor | None = None
    """(B,...) conditions of the batch and the rollout"""
    s2: Tensor | None = None
    """(T,) adaptive velocity s_t^2, MATH (3.5)"""
    shares: Tensor | None = None
    """(2,T) running sums of the two estimates in the replay's denoising loss"""

    def kept(self) -> State:
        """What the next round takes over: the rollout, the largest of all, goes."""
        return State(s2=self.s2, shares=self.shares)


class Update(Protocol):
    """One part of a round, as a step of a player's optimiser."""

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Do it; returns scalars to log by name.

        Raises:
            FloatingPointError: a loss or its gradient is not finite; that player has not moved
        """


def means(logs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Scalars of several optimiser steps -> their means by name; none of no steps."""
    return {name: torch.stack([log[name] for log in logs]).mean() for name in logs[0]} if logs else {}
