"""Pictures of samples from a density, known or learned, and of how a sampler learned to draw them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import Cost, Energy, Sampler
from dxmi.chains.density import ChainSamples
from dxmi.chains.diagnostics import exact_energies
from dxmi.chains.rollout import rollout

SHOWN = 2000  # points, so that a picture of a million samples stays readable


PANELS = 6  # steps at which the value is drawn


def save_picture(energy: Energy, drawn: ChainSamples, path: Path, tau: float = 1.0) -> None:
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
    sides, grid = mesh(flat, like)
    with torch.no_grad():
        e = energy(grid).double().cpu()
    density = (e.min() - e).exp().reshape(200, 200).T
    axes.contourf(*sides, density, levels=12, cmap="Blues")
    axes.plot(*flat[:SHOWN].T, ".", color="black", markersize=1.5, alpha=0.5)
    axes.set(title="density and samples", xlim=sides[0][[0, -1]].tolist(), ylim=sides[1][[0, -1]].tolist())


def mesh(flat: Tensor, like: Tensor, side: int = 200) -> tuple[list[Tensor], Tensor]:
    """Two sides (side,) that span points (n,2) with a margin, and the events (side*side,*S) between them."""
    low, high = flat.quantile(torch.tensor([0.001, 0.999], dtype=flat.dtype), dim=0)
    margin = 0.1 * (high - low).clamp(min=1e-6)
    sides = [torch.linspace(a, b, side) for a, b in zip(low - margin, high + margin, strict=True)]
    return sides, torch.cartesian_prod(*sides).to(like).reshape(-1, *like.shape[1:])


def draw_marginals(axes: Any, flat: Tensor) -> None:
    """Histograms of the first coordinates of (n,D)."""
    for i in range(min(4, flat.shape[1])):
        axes.hist(flat[:, i].numpy(), bins=80, density=True, histtype="step", label=f"$x_{{{i + 1}}}$")
    axes.set_title("marginals")
    axes.legend()


def draw_energies(axes: Any, energy: Energy, energies: Tensor, tau: float) -> None:
    """Energies of the samples (n,), over those of exact samples where the density has them, at temperature 1."""
    values = energies.double().cpu()
    shown = values[values <= values.quantile(0.999)] if len(values) < 1_000_000 else values
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


@torch.no_grad()
def save_learned(energy: Callable[[Tensor], Tensor], samples: Tensor, data: Tensor, path: Path) -> None:
    """One PNG in two dimensions: contours of a learned energy under samples (n,2), and under the data (m,2)."""
    from matplotlib.figure import Figure

    sides, grid = mesh(torch.cat([samples, data]).double(), data)
    values = energy(grid).double().cpu()
    highest = energy(torch.cat([samples, data])).double().cpu().quantile(0.99)
    levels = torch.linspace(values.min(), highest, 16, dtype=values.dtype)
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for axes, points, title in zip(figure.subplots(1, 2), (samples, data), ("samples", "data"), strict=True):
        if levels.isfinite().all() and (levels.diff() > 0).all():
            drawn = axes.contourf(*sides, values.reshape(200, 200).T, levels=levels, extend="max", cmap="viridis_r")
            figure.colorbar(drawn, ax=axes, format="%.3g")
        axes.plot(*points[:SHOWN].T, ".", color="black", markersize=1.5, alpha=0.5)
        axes.set(title=f"energy and {title}", xlim=sides[0][[0, -1]].tolist(), ylim=sides[1][[0, -1]].tolist())
    figure.savefig(path, dpi=110)


@torch.no_grad()
def save_values(sampler: Sampler, cost: Cost, path: Path) -> None:
    """One PNG for a density in two dimensions: the value V_t at some steps under states x_t; no file for others."""
    from matplotlib.figure import Figure

    shape = cost.energy.event_shape or ()
    if cost.value is None or torch.Size(shape).numel() != 2:
        return
    xs = rollout(sampler, cost, (500, *shape), Generator().manual_seed(0))
    sides, grid = mesh(xs.reshape(-1, 2).double().cpu(), xs[0], side=100)
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    steps = sorted({round(k * sampler.steps / (PANELS - 1)) for k in range(PANELS)})
    for axes, t in zip(figure.subplots(2, PANELS // 2).flat, steps, strict=False):
        value, seen = (cost(x, torch.full((len(x),), t, device=x.device)).double().cpu() for x in (grid, xs[t]))
        levels = torch.linspace(value.min(), seen.quantile(0.98), 16, dtype=value.dtype)
        if levels.isfinite().all() and (levels.diff() > 0).all():  # a value that ran away has no contours
            drawn = axes.contourf(*sides, value.reshape(100, 100).T, levels=levels, extend="max", cmap="viridis_r")
            figure.colorbar(drawn, ax=axes, format="%.3g")
        axes.plot(*xs[t].flatten(1).cpu().T, ".", color="black", markersize=1.5, alpha=0.6)
        axes.set(xlim=sides[0][[0, -1]].tolist(), ylim=sides[1][[0, -1]].tolist())
        axes.set_title(f"energy and $x_{{{t}}}$" if t == sampler.steps else f"$V_{{{t}}}$ and $x_{{{t}}}$")
    figure.savefig(path, dpi=110)
