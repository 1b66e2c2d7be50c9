"""curves.png: what was logged and what was measured; grids.png: images of all."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from compare_solvers import asked
from job import Job
from judge import is_distance
from torch import Tensor

from dxmi.api import Draw
from dxmi.chains import first_samples

COUNT = 32  # images of each
COLUMNS = 3  # of panels
SHOWN = ("gap_1", "gap_4", "path_loss", "distillation")
"""what is drawn of a game's log, where it is there"""


def pictures_part(job: Job) -> dict[str, Any]:
    """Draw both; nothing is drawn of what no part has left."""
    left = []
    if job.curves or job.rows:
        curves(job)
        left.append("curves.png")
    if job.teacher is not None:
        grids(job)
        left.append("grids.png")
    return {"files": left}


def curves(job: Job) -> None:
    """Losses of the teacher, figures of the games, and distances against calls of the network."""
    from matplotlib.figure import Figure

    names = dict.fromkeys(name for row in job.rows for name in row["metrics"])
    panels = [partial(learning if name == "teacher" else log, name=name, lines=job.curves[name]) for name in job.curves]
    panels += [partial(distances, metric=name, rows=job.rows) for name in names if is_distance(name)]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 4 * rows), layout="constrained")
    for k, panel in enumerate(panels):
        panel(figure.add_subplot(rows, COLUMNS, k + 1))
    figure.savefig(job.out / "curves.png", dpi=100)


def learning(axes: Any, name: str, lines: list[dict[str, float]]) -> None:
    """A loss by seconds."""
    axes.plot([line["seconds"] for line in lines], [line["loss"] for line in lines])
    axes.set(title=name, xlabel="seconds", ylabel="loss", yscale="log")


def log(axes: Any, name: str, lines: list[dict[str, float]]) -> None:
    """What a game has logged, by rounds."""
    for key in (key for key in SHOWN if any(key in line for line in lines)):
        known = [line for line in lines if line.get(key) is not None]
        axes.plot([line["step"] for line in known], [line[key] for line in known], label=key)
    proxies = [line for line in lines if line.get("proxy") is not None]
    if proxies:
        beside = axes.twinx()
        beside.plot([line["step"] for line in proxies], [line["proxy"] for line in proxies], "k.-")
        beside.set(ylabel="distance while it learns (black)", yscale="log")
    axes.set(title=f"game {name}", xlabel="rounds")
    axes.legend(fontsize=8)


def distances(axes: Any, metric: str, rows: list[dict[str, Any]]) -> None:
    """A distance against calls of the network, on log axes, the floor dashed."""
    names = dict.fromkeys(row["name"] for row in rows)
    for name in names:
        own = sorted(
            (row["nfe"], row["metrics"][metric]) for row in rows if row["name"] == name and metric in row["metrics"]
        )
        if own:
            axes.plot(*zip(*own, strict=True), "o-", label=name)
    floors = [row["metrics"][f"{metric}_floor"] for row in rows if f"{metric}_floor" in row["metrics"]]
    if floors:
        axes.axhline(floors[0], color="grey", linestyle="--", label="data drawn again")
    axes.set(title=metric, xlabel="network calls a sample", xscale="log", yscale="log")
    axes.legend(fontsize=8)


def grids(job: Job) -> None:
    """Images of the data, the students and the teacher, from the same noise."""
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    panels = [("data", job.images[torch.arange(COUNT) % len(job.images)])]
    panels += [(f"{name}, {steps} steps", drawn(draw, steps)) for name, steps, draw in wanted(job)]
    figure = Figure(figsize=(8, 1.3 * len(panels)), layout="constrained")
    for (title, images), axes in zip(panels, figure.subplots(len(panels), 1, squeeze=False)[:, 0], strict=True):
        grid = make_grid((images.clamp(-1, 1) + 1) / 2, nrow=len(images) // 2, padding=1, pad_value=0.5)
        axes.imshow(grid.permute(1, 2, 0), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    figure.savefig(job.out / "grids.png", dpi=150)


def wanted(job: Job) -> list[tuple[str, int, Draw]]:
    """The students, and the teacher in four steps and in most."""
    some = {min(job.sizes.unipc, key=lambda steps: abs(steps - 4)), max(job.sizes.unipc)}
    return [row for row in asked(job) if row[0].startswith("student") or (row[0] == "unipc" and row[1] in some)]


def drawn(draw: Draw, steps: int) -> Tensor:
    """Images (COUNT,C,H,W) from noise that is the same for all."""
    return first_samples([draw], COUNT, steps, seed=1, size=COUNT)[0]
