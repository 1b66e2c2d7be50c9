"""What families share in calling their networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dxmi.api import NetworkCall


def in_precision(call: NetworkCall, dtype: torch.dtype) -> NetworkCall:
    """The same call of a network with weights of this dtype, partly or all, with float32 outside."""

    def called(network: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            return call(network, x, timestep, cond).float()

    return called


def pack(text: Tensor, pooled: Tensor) -> Tensor:
    """One tensor for text (B,L,d) and pooled (B,p) embeddings: (B,L+1,max(d,p)), the pooled ones last, zero-padded."""
    width = max(text.shape[-1], pooled.shape[-1])
    return torch.cat([pad(part, (0, width - part.shape[-1])) for part in (text, pooled[:, None])], 1)


def unpack(cond: Tensor | None, width: int, pooled: int) -> tuple[Tensor, Tensor]:
    """The inverse of ``pack``: text (B,L,width) and pooled (B,pooled)."""
    assert cond is not None
    return cond[:, :-1, :width], cond[:, -1, :pooled]


def means(output: Tensor, x: Tensor) -> Tensor:
    """The channels of x (B,C,H,W) in a network's output (B,C or 2C,H,W); what follows is a learned variance."""
    return output[:, : x.shape[1]]
