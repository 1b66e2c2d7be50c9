"""What a finished run learned, loaded to draw from it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch.nn import Module

from dxmi.api import ConfigError, Cost, GaussianSampler, ValueGuided, cost_to_go
from dxmi.api.errors import require
from dxmi.chains import SamplerDraw
from dxmi.config import Checked, TrainConfig
from dxmi.runs.energy import load_energy_folder

NO_SAMPLES = "with game.start: data values are learned near the data alone, and no samples can be drawn"


class Finished(NamedTuple):
    """What a run learned."""

    run: TrainConfig
    """its players; the sampler and, on a known density, the value have learned"""
    cost: Cost
    """the cost to go that the sampler follows"""
    draw: SamplerDraw
    networks: dict[str, Module]
    """energy, sampler and, where there is one, value"""


def runs_on_end(run: TrainConfig) -> int:
    """How often the sampler runs on end for one sample of what a run has learned.

    Where a chain stands for its energy (``game.start: data`` or ``chains``) it is the long chain; else once.
    """
    chain = not isinstance(run.sampler, GaussianSampler) and run.game.start != "noise"
    return run.long_chain or 1 if chain else 1


def can_be_drawn(run: TrainConfig) -> bool:
    """Whether a run leaves something to draw samples with.

    Values that were learned from data alone (``game.start: data``) are known near the data: they carry nothing there
    from where the sampler itself starts.
    """
    return not (isinstance(run.sampler, ValueGuided) and run.game.start == "data")


def load_learned(folder: Path, config: dict[str, Any]) -> Finished:
    """A run on data that left no pipeline: its learned sampler, or its chain on the learned energy.

    Raises:
        ConfigError: the folder holds no such finished run, or one whose values were learned near the data alone
    """
    try:
        run = Checked(TrainConfig, config).build()
        require(can_be_drawn(run), folder, NO_SAMPLES, "rank data with 'dxmi score'")
        shape = tuple(json.loads((folder / "energy" / "config.json").read_text())["shape"])
        energy, _ = load_energy_folder(folder / "energy")
        value = load_energy_folder(folder / "value")[0] if run.value is not None else None
        if isinstance(run.sampler, GaussianSampler):
            load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ConfigError(folder, "holds no finished run that can be drawn from") from error
    return on_device(run, cost_to_go(energy, value, run.sampler), shape)


def load_density(folder: Path, config: dict[str, Any]) -> Finished:
    """A run on a known density: the density, the learned sampler and the value that it follows.

    Raises:
        ConfigError: the folder holds none
    """
    try:
        run = Checked(TrainConfig, config).build()
        load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
        if run.value is not None:
            run.value.load_state_dict(load_file(folder / "value" / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(folder, "holds no finished run on a known density") from error
    return on_device(run, cost_to_go(run.energy, run.value, run.sampler), run.energy.event_shape or ())


def on_device(run: TrainConfig, cost: Cost, shape: tuple[int, ...]) -> Finished:
    """All of it on the GPU if there is one; S of what is drawn is ``shape``."""
    networks: dict[str, Module] = {"energy": cost.energy, "sampler": run.sampler.eval()}
    if cost.value is not None:
        networks["value"] = cost.value
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in networks.values():
        module.to(device)
    return Finished(run, cost, SamplerDraw(run.sampler, shape, cost, runs_on_end(run)), networks)
