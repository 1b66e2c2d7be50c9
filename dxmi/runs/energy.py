"""Energy folders: an energy with its weights, as a run leaves it. No pickled code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dxmi.api import ConfigError, Energy
from dxmi.config import build_plugin

NONE = "is no energy folder with config.json and model.safetensors"


def save_energy(
    energy: Energy, config: dict[str, Any], steps: int, folder: Path, shape: tuple[int, ...] | None = None
) -> None:
    """``config.json`` (the plugin and its options, as in YAML, T and S) and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"plugin": config, "steps": steps, "shape": shape}, indent=2) + "\n")
    save_file({k: v.contiguous().cpu() for k, v in energy.state_dict().items()}, folder / "model.safetensors")


def load_energy_folder(folder: Path) -> tuple[Energy, int]:
    """The energy (or value) that ``save_energy`` wrote, and T, the time at which one with ``time: true`` is the energy.

    Raises:
        ConfigError: it is no such folder, or its plugin is not installed
    """
    config, weights = read_energy(folder)
    try:
        energy = build_plugin(Energy, config["plugin"])  # type: ignore[type-abstract]
        energy.load_state_dict(weights)
        return energy.eval(), config["steps"]
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(folder, NONE) from error


def read_energy(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``config.json`` and ``model.safetensors`` hold.

    Raises:
        ConfigError: they are not there, or cannot be read
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        return config | {"plugin": config["plugin"]}, load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(folder, NONE) from error
