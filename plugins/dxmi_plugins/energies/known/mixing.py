"""What mixtures share: responsibilities, and the draw of a component.

Logits are in bits: ``exp`` of numbers below -87 is fifty times slower than ``exp2`` in torch on x86 CPUs, and far
components have such logits almost everywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

LOG2_E = math.log2(math.e)


class Shares(NamedTuple):
    """What K logits (K,N) amount to."""

    raw: Tensor
    """(K,N): ``2**logit`` up to a factor of each column"""
    total: Tensor
    """(N,): the sums of its columns; ``raw/total`` are the responsibilities"""
    log: Tensor
    """(N,): ``log sum_k 2**logit``, natural"""


def shares(logits: Tensor) -> Shares:
    """Overwrites the logits (K,N)."""
    top = logits.detach().amax(0).clamp(min=torch.finfo(logits.dtype).min)  # -inf - -inf is no number
    raw = logits.sub_(top).exp2_()
    total = raw.sum(0)
    return Shares(raw, total, (top + total.log2()) / LOG2_E)


def categorical(p: Tensor, n: int, generator: Generator | None = None) -> Tensor:
    """One index a column of weights p in any scale: (K,n), or (K,1) for all columns, -> (n,) integer.

    The uniform numbers are drawn where the generator lives.
    """
    device = p.device if generator is None else generator.device
    u = torch.rand(n, generator=generator, device=device, dtype=p.dtype).to(p.device)
    upto = p.cumsum(0)
    return (upto < u * upto[-1]).sum(0)
