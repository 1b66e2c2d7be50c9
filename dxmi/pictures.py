"""Pictures of samples from a known density."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dxmi.api import Energy
from dxmi.chains import Drawn
from dxmi.diagnostics import exact_energies

SHOWN = 2000  # points, so that a picture of a million samples stays readable


def save_picture(energy: Energy, drawn: Drawn, path: Path, tau: float = 1.0) -> None:
    """One PNG: density contours with samples over them in two dimensions, marginals otherwise; energies; traces."""
    from matplotlib.figure import Figure

    flat = drawn.samples.flatten(1).double().cpu()
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    if flat.shape[1] == 2:
        draw_contours(left, energy, flat, drawn.samples)
    else:
        draw_marginals(left, flat)
    draw_energies(middle, energy, drawn.energies, tau)
    draw_traces(right, drawn.trace_energies)
    figure.savefig(path, dpi=110)


def draw_contours(axes: Any, energy: Energy, flat: Tensor, like: Tensor) -> None:
    """Contours of exp(-E) over the samples' range, and the samples (n,2)."""
    low, high = flat.quantile(torch.tensor([0.001, 0.999], dtype=flat.dtype), dim=0)
    margin = 0.1 * (high - low).clamp(min=1e-6)
    sides = [torch.linspace(a, b, 200) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = torch.cartesian_prod(*sides).to(like)
    with torch.no_grad():
        e = energy(grid.reshape(-1, *like.shape[1:])).double().cpu()
    density = (e.min() - e).exp().reshape(200, 200).T
    axes.contourf(*sides, density, levels=12, cmap="Blues")
    axes.plot(*flat[:SHOWN].T, ".", color="black", markersize=1.5, alpha=0.5)
    axes.set(title="density and samples", xlim=sides[0][[0, -1]].tolist(), ylim=sides[1][[0, -1]].tolist())


def draw_marginals(axes: Any, flat: Tensor) -> None:
    """Histograms of the first coordinates of (n,D)."""
    for i in range(min(4, flat.shape[1])):
        axes.hist(flat[:, i].numpy(), bins=80, density=True, histtype="step", label=f"$x_{{{i + 1}}}$")
    axes.set_title("marginals")
    axes.legend()


def draw_energies(axes: Any, energy: Energy, energies: Tensor, tau: float) -> None:
    """Energies of the samples (n,), over those of exact samples where the density has them, at temperature 1."""
    found = energies.double().cpu()
    shown = found[found <= found.quantile(0.999)] if len(found) < 1_000_000 else found
    axes.hist(shown.numpy(), bins=80, density=True, histtype="step", label="samples")
    exact = exact_energies(energy) if tau == 1 else None
    if exact is not None:
        exact = exact.double().cpu()
        axes.hist(exact[exact <= exact.quantile(0.999)].numpy(), bins=80, density=True, histtype="step", label="exact")
    axes.set_title("energy")
    axes.legend()


def draw_traces(axes: Any, traces: Tensor) -> None:
    """Energies of a few chains along (draws, chains)."""
    axes.set_title("energy traces")
    if len(traces):
        axes.plot(traces[:, :5].double().cpu().numpy(), linewidth=0.8)
        axes.set_xlabel("kept states")
    else:
        axes.text(0.5, 0.5, "states along these chains are no draws", ha="center", transform=axes.transAxes)
