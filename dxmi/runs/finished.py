"""A finished run, loaded to draw from it again."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch.nn import Module

from dxmi.api import ConfigError, Cost, Energy, GaussianSampler, Sampler
from dxmi.api.errors import require
from dxmi.chains.draw import SamplerDraw
from dxmi.config.checked import Checked
from dxmi.config.run import TrainConfig
from dxmi.config.yaml_files import read
from dxmi.runs.energy import load_energy

NO_SAMPLES = "with game.start: data values are learned near the data alone, and no samples can be drawn"


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
    sampler = run.sampler
    return not (isinstance(sampler, GaussianSampler) and sampler.value_guided and run.game.start == "data")


def learned_draw(folder: Path) -> tuple[SamplerDraw, dict[str, Module]]:
    """What draws the samples of a run on data, a learned sampler or a chain on the learned energy, and its networks.

    Raises:
        ConfigError: the folder holds no such finished run, or one whose values were learned near the data alone
    """
    try:
        run = Checked(TrainConfig, read(folder / "run.yaml")).build()
        require(can_be_drawn(run), folder, f"{NO_SAMPLES}", "rank data with 'dxmi score'")
        shape = tuple(json.loads((folder / "energy" / "config.json").read_text())["shape"])
        energy = load_energy(folder / "energy")
        value = load_energy(folder / "value") if run.value is not None else None
        if isinstance(run.sampler, GaussianSampler):
            load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ConfigError(folder, "holds no finished run that can be drawn from") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = {"energy": energy, "sampler": run.sampler.eval()} | ({} if value is None else {"value": value})
    for module in networks.values():
        module.to(device)
    return SamplerDraw(run.sampler, shape, Cost(energy, value, run.sampler.steps), runs_on_end(run)), networks


def load_density_run(folder: Path) -> tuple[Energy, Sampler, Cost]:
    """The density, the learned sampler and the cost to go of a run.

    Raises:
        ConfigError: the folder holds no finished run on a known density
    """
    run, cost = load_run(folder)
    return run.energy, run.sampler, cost


def load_run(folder: Path) -> tuple[TrainConfig, Cost]:
    """A finished run on a known density with what it learned, and the cost to go that its sampler follows.

    Raises:
        ConfigError: the folder holds none
    """
    try:
        config = read(folder / "run.yaml")
        if "chains" in config:
            raise ConfigError(folder, "holds chains, whose figures 'dxmi sample' leaves in diagnostics.json")
        if config.get("data") is not None:
            raise ConfigError(folder, "is a run on data, whose figures 'dxmi train' leaves in evaluation.json")
        run = Checked(TrainConfig, config).build()
        load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
        if run.value is not None:
            run.value.load_state_dict(load_file(folder / "value" / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(folder, "holds no finished run on a known density") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in filter(None, (run.energy, run.sampler, run.value)):
        module.to(device)
    return run, Cost(run.energy, run.value, run.sampler.eval().steps)
