"""A learned sampler beside a known density's own samples: distances and their floors."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, DensitySamples, Energy, Evaluator
from dxmi.api.reference import reference_samples
from dxmi.chains import Weighted
from dxmi.evaluation.measure import measure


class Halves(NamedTuple):
    """A known density's own samples, to compare others with, and as many more of them for the floor."""

    reference: DensitySamples
    other: Tensor
    """(n,*S)"""


def halves(energy: Energy, tau: float, n: int, seed: int) -> Halves:
    """N samples of the density and n others, or as many as there are stored.

    Raises:
        ConfigError: it has no samples, or the sampler draws at another temperature than they have
    """
    if tau != 1:
        raise ConfigError("evaluators", f"a density's own samples are at temperature 1, the sampler's at {tau}")
    both = reference_samples(energy, 2 * n, Generator().manual_seed(~seed))  # other noise than the paths of this seed
    k = len(both) // 2
    return Halves(DensitySamples(energy, both.samples[:k], both.exact), both.samples[k : 2 * k])


def density_floor(evaluators: list[Evaluator], parts: Halves) -> dict[str, Any]:
    """The row of the density's own samples against others of its own: what a perfect sampler gets."""
    figures = measure(evaluators, parts.reference, lambda n: parts.other[:n])
    return {"name": "floor", "steps": None, "nfe": None, **figures}


def student_row(
    drawn: Weighted, own: dict[str, float], steps: int, evaluators: list[Evaluator], parts: Halves | None
) -> dict[str, Any]:
    """The row of a learned sampler: its ``own`` figures, and its samples' distances from the reference."""
    distances = {} if parts is None else measure(evaluators, parts.reference, lambda n: drawn.samples[:n])["metrics"]
    row = {"name": "student", "steps": steps, "nfe": steps, "samples": len(drawn.samples)}
    return {**row, "metrics": {**own, **distances}}


def density_stamp(evaluators: list[Evaluator], energy: Energy, parts: Halves | None, seed: int) -> dict[str, Any]:
    """What the figures were made with and compared with."""
    made: dict[str, Any] = {"dxmi": version("dxmi"), "torch": torch.__version__, "energy": type(energy).__name__}
    if parts is not None:
        kind = "exact draws" if parts.reference.exact else "stored samples of long chains"
        made["evaluators"] = [evaluator.stamp() for evaluator in evaluators]
        made["reference"] = {"kind": kind, "size": len(parts.reference)}
    return made | {"seed": seed}
