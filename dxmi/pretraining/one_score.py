"""Models of one score: an energy's gradient, or a free network's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import dxmi.pretraining.score_losses as score_losses
from dxmi.api import ConfigError
from dxmi.api.errors import first_line, require
from dxmi.config import PretrainConfig
from dxmi.data import Batch, Draws, Source
from dxmi.pretraining.continuity import check_continuous
from dxmi.pretraining.model import Model, cleanest, free_network, save_free, some
from dxmi.pretraining.score_network import EnergyScore
from dxmi.pretraining.scores import Score, differentiable, vector_jacobian
from dxmi.runs.energy import save_energy

IMPLICIT = ("implicit", "hutchinson", "sliced")


def score_model(run: PretrainConfig, source: Source) -> Model:
    """One score, minus an energy's gradient or a ``ScoreNetwork``'s output.

    Raises:
        ConfigError: the network does not take the data, or the objective does not fit network or data
    """
    network = free_network(run, source, None) if run.energy is None else EnergyScore(run.energy)
    losses = objective_loss(run, source)
    check_network(network, some(run, source, 8), run.objective, "score" if run.energy is None else "energy")

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return losses(network, batch.items).mean() / batch.items[0].numel()

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        if isinstance(network, EnergyScore):
            save_energy(network.energy, resolved["energy"], 0, out, source.event_shape)
            return {}
        return save_free(network, out, cleanest(run, source, run.sigma or 0.0))

    return Model(network, loss, save)


def check_network(network: nn.Module, x: Tensor, objective: str, key: str) -> None:
    """Let it read its sizes from x (B,*S); ``key`` is the option it comes from.

    Raises:
        ConfigError: it does not take them or has nothing to learn
    """
    try:
        x, s = differentiable(network, x)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(key, f"it does not take {tuple(x.shape)}: {first_line(error)}") from error
    require(any(True for _ in network.parameters()), f"{key}", "it has nothing to learn", "take a network, such as mlp")
    bent = objective not in IMPLICIT or vector_jacobian(s, x, torch.randn_like(s)).any()
    cure = "take a smooth activation, such as silu"
    require(bool(bent), key, f"its score is constant between kinks, which objective {objective} cannot bend", f"{cure}")


def objective_loss(run: PretrainConfig, source: Source) -> Callable[[Score, Tensor], Tensor]:
    """The objective's loss: a score and clean events (B,*S) -> (B,) (TOOLBOX rows 15 to 19).

    Raises:
        ConfigError: explicit without a known density, or an implicit loss on data that have none
    """
    if run.objective in IMPLICIT:
        check_continuous(run.objective, source)
    if run.objective == "explicit" and not isinstance(source, Draws):
        raise ConfigError("objective", "explicit compares with a known score, so it needs data.density")

    def known(x: Tensor) -> Tensor:
        return -cast(Draws, source).energy.with_gradient(x.cpu())[1].to(x)  # it draws on the CPU too

    def v(x: Tensor) -> Tensor:
        return score_losses.probes(x, run.probes or "rademacher")

    return {
        "explicit": lambda score, x: score_losses.explicit(score(x), known(x)),
        "implicit": score_losses.implicit,
        "hutchinson": lambda score, x: score_losses.hutchinson(score, x, v(x)),
        "sliced": lambda score, x: score_losses.sliced(score, x, v(x)),
        "denoising": lambda score, x: score_losses.residual(score, x, torch.randn_like(x), run.sigma or 0.0),
    }[run.objective]
