"""What chains tell about themselves, as JSON types: acceptance, effective sample sizes, R-hat, energies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dxmi.api import Energy, Sampler


def diagnose(energy: Energy, sampler: Sampler, energies: Tensor, traces: Tensor) -> dict[str, Any]:
    """The diagnostics of one set of chains.

    energies (n,): of the last states; traces (draws, watch, *S): states along some chains, or no draws.
    """
    found: dict[str, Any] = {
        "chains": len(energies),
        "steps": sampler.steps,
        "energy": {"mean": energies.mean().item(), "std": energies.std().item() if len(energies) > 1 else 0.0},
    }
    for name, told in sampler.report().items():
        found[name] = summary(told) if isinstance(told, Tensor) and told.numel() > 1 else _plain(told)
        if name == "acceptance" and isinstance(told, Tensor):
            found["chains_that_never_moved"] = int((told == 0).sum())
    if energy.log_z is not None:
        found["log_z_exact"] = energy.log_z
    if traces.shape[0] >= 4:
        found |= convergence(traces.flatten(2))
    return found


def summary(per_chain: Tensor) -> dict[str, float]:
    """Mean and extremes of numbers (B,)."""
    return {"mean": per_chain.mean().item(), "min": per_chain.min().item(), "max": per_chain.max().item()}


def convergence(traces: Tensor) -> dict[str, Any]:
    """Bulk and tail ESS and rank-normalised R-hat (Vehtari et al. 2021) of each of D coordinates: (draws,chains,D).

    ESS counts all the draws of all the chains together.
    """
    from arviz_stats.base import array_stats

    array = traces.permute(1, 0, 2).double().cpu().numpy()  # (chains, draws, D)
    axes = {"chain_axis": 0, "draw_axis": 1}
    bulk = torch.as_tensor(array_stats.ess(array, method="bulk", **axes))
    tail = torch.as_tensor(array_stats.ess(array, method="tail", prob=0.9, **axes))  # of the 5 % and 95 % quantiles
    found = {"draws": array.shape[0] * array.shape[1], "ess_bulk": bulk.tolist(), "ess_tail": tail.tolist()}
    if array.shape[0] > 1:
        found["r_hat"] = torch.as_tensor(array_stats.rhat(array, method="rank", **axes)).tolist()
    return found


def _plain(told: Any) -> Any:
    return told.item() if isinstance(told, Tensor) else told
