"""Drawing again from a finished run on data whose sampler is no diffusers pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Generator, Tensor
from torch.nn import Module

from dxmi.api import ConfigError, Cost, GaussianSampler
from dxmi.artefacts import load_energy
from dxmi.config import Checked, Run
from dxmi.dialect import read
from dxmi.drawing import Student
from dxmi.errors import require

NO_SAMPLES = "with game.start: data values are learned near the data alone, and no samples can be drawn"


def runs_on_end(run: Run) -> int:
    """How often the sampler runs on end for one sample of what a run has learned.

    Where a chain stands for its energy (``game.start: data`` or ``chains``) it is the long chain; else once.
    """
    chain = not isinstance(run.sampler, GaussianSampler) and run.game.start != "noise"
    return run.long_chain or 1 if chain else 1


def can_be_drawn(run: Run) -> bool:
    """Whether a run leaves something to draw samples with.

    Values that were learned from data alone (``game.start: data``) are known near the data: they carry nothing there
    from where the sampler itself starts.
    """
    sampler = run.sampler
    return not (isinstance(sampler, GaussianSampler) and sampler.value_guided and run.game.start == "data")


def learned_draw(folder: Path) -> tuple[Student, dict[str, Module]]:
    """What draws the samples of a run on data, a learned sampler or a chain on the learned energy, and its networks.

    Raises:
        ConfigError: the folder holds no such finished run, or one whose values were learned near the data alone
    """
    try:
        run = Checked(Run, read(folder / "run.yaml")).build()
        require(can_be_drawn(run), f"{folder}: {NO_SAMPLES}; rank data with 'dxmi score'")
        shape = tuple(json.loads((folder / "energy" / "config.json").read_text())["shape"])
        energy = load_energy(folder / "energy")
        value = load_energy(folder / "value") if run.value is not None else None
        if isinstance(run.sampler, GaussianSampler):
            load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ConfigError(f"{folder}: holds no finished run that can be drawn from") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = {"energy": energy, "sampler": run.sampler.eval()} | ({} if value is None else {"value": value})
    for module in networks.values():
        module.to(device)
    return Student(run.sampler, shape, Cost(energy, value, run.sampler.steps), runs_on_end(run)), networks


def sample_learned(folder: Path, n: int | None, seed: int) -> Tensor:
    """N samples (n,*S) of such a run; None draws 64 images or 1000 vectors.

    Raises:
        ConfigError: as ``learned_draw``
    """
    draw, _ = learned_draw(folder)
    return draw(n or (64 if len(draw.shape) == 3 else 1000), draw.sampler.steps, Generator().manual_seed(seed))
