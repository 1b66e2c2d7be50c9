"""Images side by side in one PNG."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor


def save_grid(images: Tensor, path: Path, columns: int = 8, least: int = 64) -> None:
    """(N,C,H,W) in [-1, 1] -> one PNG, small images enlarged to at least ``least`` pixels."""
    from torchvision.utils import make_grid, save_image

    enlarge = max(1, least // images.shape[-1])
    large = images.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(make_grid((large + 1) / 2, nrow=columns, pad_value=0.5), path)


def save_before_after(before: Tensor, after: Tensor, titles: tuple[str, str], path: Path) -> None:
    """Two rows-of-images panels, the first above the second: (N,C,H,W) in [-1, 1] each -> one PNG."""
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    figure = Figure(figsize=(8, 3.1), layout="constrained")
    for axes, images, title in zip(figure.subplots(2, 1), (before, after), titles, strict=True):
        grid = make_grid((images.clamp(-1, 1) + 1) / 2, nrow=len(images) // 2, padding=1, pad_value=0.5)
        axes.imshow(grid.permute(1, 2, 0), interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    figure.savefig(path, dpi=120)
