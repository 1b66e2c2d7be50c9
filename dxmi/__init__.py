"""dxmi: fine-tune pretrained diffusers pipelines to a few steps by a game between an energy and a sampler."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dxmi.evaluation.evaluate import evaluate as evaluate

__version__ = version("dxmi")


def __getattr__(name: str) -> Any:
    """``dxmi.evaluate``; torch is imported by whoever asks for it."""
    if name == "evaluate":
        from dxmi.evaluation.evaluate import evaluate

        return evaluate
    raise AttributeError(f"module 'dxmi' has no attribute '{name}'")
