"""The same noise on every device: what torch draws by itself comes from the CPU's generator."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch.overrides import TorchFunctionMode

import dxmi

LIKE = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}
MADE = (torch.randn, torch.rand, torch.randint, torch.randperm)


class CpuNoise(TorchFunctionMode):
    """Inside, noise without a generator is drawn on the CPU and moved to where it was asked for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in LIKE:
            like = args[0]
            made = LIKE[function](tuple(like.shape), dtype=kwargs.get("dtype") or like.dtype)
            return made.to(kwargs.get("device") or like.device)
        if function in MADE and kwargs.get("generator") is None:
            device = kwargs.pop("device", None)
            made = function(*args, **kwargs)
            return made if device is None else made.to(device)
        return function(*args, **kwargs)


@contextmanager
def on_cpu(wanted: bool) -> Iterator[None]:
    """Inside, accelerate takes the CPU if that is wanted, else its default device."""
    before = os.environ.get("ACCELERATE_USE_CPU")
    os.environ["ACCELERATE_USE_CPU"] = str(wanted).lower()
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        yield
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.pop("ACCELERATE_USE_CPU")
        if before is not None:
            os.environ["ACCELERATE_USE_CPU"] = before


def losses(config: Path, keys: dict[str, Any], cpu: bool) -> list[dict[str, float]]:
    """What the rounds of a run log, on the CPU or on accelerate's default device, with the same noise."""
    brief = {"evaluators": [], "compare_steps": [], "tracker": None, "every.log": 1}
    with TemporaryDirectory() as folder, on_cpu(cpu), CpuNoise():
        run = dxmi.train(config, Path(folder) / "run", **brief, **keys)
        return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def differences(one: list[dict[str, float]], other: list[dict[str, float]], least: float = 1e-3) -> dict[str, float]:
    """The largest relative difference of each figure over all rounds; figures below ``least`` count as that large.

    Raises:
        ValueError: the two have not the same figures
    """
    if len(one) != len(other) or any(a.keys() != b.keys() for a, b in zip(one, other, strict=True)):
        raise ValueError("the two runs logged other figures")
    found: dict[str, float] = {}
    for a, b in zip(one, other, strict=True):
        for key in a:
            apart = abs(a[key] - b[key]) / max(abs(a[key]), abs(b[key]), least)
            found[key] = max(found.get(key, 0.0), apart)
    return found
