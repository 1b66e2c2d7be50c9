"""Whether data have a density, which the implicit losses need."""

from __future__ import annotations

import torch
from torch import Tensor

from dxmi.api import ConfigError
from dxmi.data import Draws, Images, Source, Stream

ROWS = 50_000
"""most rows that are searched for what no data with a density have"""


def check_continuous(objective: str, source: Source) -> None:
    """Raise ConfigError for data without a density, on which the implicit losses fall without end."""
    if isinstance(source, Draws):
        return
    why = (
        "pixels have 256 values"
        if isinstance(source, Images | Stream)
        else no_density(source[:ROWS].flatten(1).double())
    )
    if why is not None:
        cure = "take objective: denoising or multi_noise, which add noise"
        raise ConfigError("objective", f"{objective} needs data with a density, and {why}", f"{cure}")


def no_density(x: Tensor) -> str | None:
    """What shows that rows (N,D) of float32 numbers have none, or None if nothing does.

    That is: a value that comes more than twice and in more than a hundredth of the rows, all rows stored twice, whole
    numbers, one norm for all, coordinates that follow from the others by a linear map, no more rows than coordinates.
    """
    for i, values in enumerate(x.T):
        distinct, often = values.unique(return_counts=True)
        if 10 * len(distinct) < 9 * len(x) or often.max() > max(2, len(x) // 100):
            return f"coordinate {i} has {len(distinct)} distinct values in {len(x)} rows"
        if (distinct == distinct.round()).all():
            return f"coordinate {i} has whole numbers alone"
    norms, std = x.norm(dim=1), x.std(0, correction=0)
    rounding = torch.finfo(torch.float32).eps
    if norms.std(correction=0) < 1e-5 * std.norm() + rounding * norms.mean():
        return f"all rows have the norm {norms.mean():.4g}"
    z = (x - x.mean(0)) / std
    spread = torch.linalg.eigvalsh(z.T @ z / len(x))  # (D,) variances along the axes, where no unit of x matters
    exact = (rounding * (x.abs().amax(0) / std).max()) ** 2
    rank = int((spread > max(exact, x.shape[1] * torch.finfo(x.dtype).eps * spread[-1])).sum())
    return f"its {len(x)} rows fill {rank} of {x.shape[1]} dimensions" if rank < x.shape[1] else None
