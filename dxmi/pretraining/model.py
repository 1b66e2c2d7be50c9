"""What ``dxmi pretrain`` can train: a network with its loss and its files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

import dxmi.pretraining.score_losses as score_losses
from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config import PretrainConfig
from dxmi.data import Batch, Source
from dxmi.pretraining.score_network import ScoreNetwork, save_score
from dxmi.pretraining.scores import Score, asymmetry

EXACT = 256  # most entries of an event for which whole Jacobians are computed


class Model(NamedTuple):
    """A network to train."""

    network: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    """the network, as it is or distributed, and clean events (B,*S) -> a scalar per entry of an event"""
    save: Callable[[nn.Module, Path, dict[str, Any]], dict[str, float]]
    """writes the averaged network into a folder, told the resolved config, and gives the figures that go with it"""


def build(kind: Any, key: str, options: dict[str, Any]) -> Any:
    """``kind(**options)``; raises ConfigError naming ``key`` for an option it does not have or accept."""
    known = [p for p in inspect.signature(kind.__init__).parameters if p != "self"]
    for option in options:
        if option not in known:
            raise ConfigError(f"{key}.{option}", f"{kind.__name__} has no such option", f"it has {', '.join(known)}")
    try:
        return kind(**options)
    except (ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise ConfigError(key, f"{kind.__name__} refuses these options: {error}") from error


def free_network(run: PretrainConfig, source: Source, sigmas: list[float] | None) -> ScoreNetwork:
    """A ``ScoreNetwork`` for the data, with these stds of noise levels, or of one score.

    Raises:
        ConfigError: ``score`` has an option that there is not, or one that the data and the noise tell
    """
    fixed = {"shape": list(source.event_shape), "sigmas": sigmas}
    for key in fixed:
        require(key not in (run.score or {}), f"score.{key}", "it is read from the data and noise", "leave it out")
    return cast(ScoreNetwork, build(ScoreNetwork, "score", {**(run.score or {}), **fixed}))


def save_free(network: nn.Module, out: Path, x: Tensor) -> dict[str, float]:
    """Write a free network, and its report at noised events x (B,*S)."""
    network = cast(ScoreNetwork, network.cpu())
    save_score(network, out)
    t = None if network.level is None else torch.zeros(len(x), dtype=torch.long)
    v = score_losses.probes(x, "rademacher") if x[0].numel() > EXACT else None
    return save_report(lambda y: network(y, t), x, v, out)


def save_report(score: Score, x: Tensor, v: Tensor | None, out: Path) -> dict[str, float]:
    """Write ``report.json``, how far a score is from a gradient at events x (B,*S); v as in ``asymmetry``."""
    figures = {"asymmetry": asymmetry(score, x, v).item()}
    (out / "report.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def cleanest(run: PretrainConfig, source: Source, sigma: float, most: int = 256) -> Tensor:
    """Events (B,*S) with noise of that std."""
    x = some(run, source, most)
    return x + sigma * torch.randn_like(x)


def some(run: PretrainConfig, source: Source, most: int = 5000) -> Tensor:
    """Events of the data, (N,*S) on the CPU: a batch of ``most``, or of all there are."""
    return source.batch(0, most, run.seed).items
