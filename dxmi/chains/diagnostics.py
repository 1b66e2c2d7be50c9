"""What chains tell about themselves, as JSON types: acceptance, effective sample sizes, R-hat, energies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from dxmi.api import Energy, ExactDraws, Sampler


def diagnose(
    energy: Energy, sampler: Sampler, energies: Tensor, traces: Tensor, trace_energies: Tensor
) -> dict[str, Any]:
    """The diagnostics of one set of chains.

    energies (n,): of the last states; traces (draws, watch, *S): states along some chains, or no draws, and their
    energies (draws, watch).
    """
    found: dict[str, Any] = {
        "chains": len(energies),
        "steps": sampler.steps,
        "energy": {"mean": energies.mean().item(), "std": energies.std().item() if len(energies) > 1 else 0.0},
    }
    exact = exact_energies(energy) if sampler.tau == 1 else None  # exact draws are at temperature 1
    if exact is not None:
        found["energy_exact"] = {"mean": exact.mean().item(), "std": exact.std().item()}
    for name, told in sampler.report().items():
        found[name] = summary(told) if isinstance(told, Tensor) and told.numel() > 1 else _plain(told)
        if name == "acceptance" and isinstance(told, Tensor):
            found["chains_that_never_moved"] = int((told == 0).sum())
    if energy.log_z is not None and sampler.tau == 1:
        found["log_z_exact"] = energy.log_z
    if traces.shape[0] >= 4:
        found |= convergence(traces.flatten(2))
        of_energy = convergence(trace_energies[..., None])
        found["energy"] |= {key: of_energy[key][0] for key in ("ess_bulk", "ess_tail", "r_hat") if key in of_energy}
    return found | {"warnings": warnings(found)}


def exact_energies(energy: Energy, n: int = 10_000) -> Tensor | None:
    """Energies (n,) of exact draws, always the same ones; None where there are none."""
    if not isinstance(energy, ExactDraws):
        return None
    with torch.no_grad():
        return energy(energy.sample(n, Generator().manual_seed(0)))  # type: ignore[no-any-return]


def warnings(found: dict[str, Any]) -> list[str]:
    """Reasons not to believe the samples that the diagnostics give: one line each, none if all is well."""
    out = []
    frozen = found.get("chains_that_never_moved", 0)
    if frozen:
        out.append(f"{frozen} of {found['chains']} chains never moved; try a smaller step size or drift_clip")
    worst = [r for r in found.get("r_hat", []) if r is None or r > 1.05]
    if worst:
        out.append("R-hat is above 1.05: the chains have not mixed; run longer")
    if "energy_exact" in found:
        mean, std, true, spread = (found[key][of] for key in ("energy", "energy_exact") for of in ("mean", "std"))
        error = math.sqrt(std**2 / found["chains"] + spread**2 / 10_000)
        enough = found["chains"] >= 500  # with fewer the spread says little
        if abs(mean - true) > 5 * error or (enough and not 0.8 < std / spread < 1.25):
            out.append(f"energies are {mean:.3g} +- {std:.3g}, of exact draws {true:.3g} +- {spread:.3g}")
    return out


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
    tail = torch.as_tensor(array_stats.ess(array, method="tail", prob=(0.05, 0.95), **axes))
    found = {"draws": array.shape[0] * array.shape[1], "ess_bulk": _finite(bulk), "ess_tail": _finite(tail)}
    if array.shape[0] > 1:
        with np.errstate(all="ignore"):  # chains that stand still have no variance
            found["r_hat"] = _finite(array_stats.rhat(array, method="rank", **axes))
    return found


def _finite(values: Any) -> list[float | None]:
    """JSON has no infinity: None where a number is not finite."""
    return [v if math.isfinite(v) else None for v in torch.as_tensor(values).tolist()]


def _plain(told: Any) -> Any:
    return told.item() if isinstance(told, Tensor) else told
