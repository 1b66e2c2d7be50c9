"""Loading a saved diffusers pipeline, and what other folders are that somebody may take for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dxmi.api import ConfigError
from dxmi.api.errors import first_line
from dxmi.config import plugins
from dxmi.pipelines.checked_files import download, is_own_code, look

KINDS = {  # by a key of its config.json
    "plugin": "is an energy; rank data with 'dxmi score', or start 'dxmi train' from it with energy_weights",
    "score": "is a score network; draw with dxmi.load_score and an annealed-Langevin scheduler",
    "class": "is a sampler alone; give the folder of its run",
}

CONVERT = "if you trust it, load it by diffusers with use_safetensors=False and save_pretrained"


def load_pipeline(source: str) -> Any:
    """The pipeline in a folder or under a hub id. Code that a folder brings runs only if it is dxmi's own.

    Raises:
        ConfigError: there is none, or its weights are pickled
    """
    folder = Path(source).expanduser()
    if folder.exists() and not (folder / "model_index.json").exists():
        raise ConfigError(folder, what_else(folder))
    for scheduler in (*plugins.installed("dxmi.schedulers").values(), *plugins.installed("dxmi.diffusers").values()):
        if scheduler.problem is None:
            scheduler.load()  # diffusers loads no class that was not imported
    pickled = ConfigError(Path(source), "only safetensors are read, since pickles can run code", CONVERT)
    try:
        files = look(folder if folder.exists() else download(source, trusted=False))
        if files.pickle is not None:
            raise pickled
        return files.load(trusted=is_own_code(files.folder))
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        if "safetensors" in str(error):
            raise pickled from error
        absent = "there is no such folder, and the hub has it not or is out of reach"
        why = first_line(error) if folder.exists() else absent
        raise ConfigError(Path(source), f"no pipeline can be loaded from it: {why}") from error


def what_else(folder: Path) -> str:
    """What a folder (or file) without ``model_index.json`` is, and what can be done with it."""
    nothing = f"is no diffusers pipeline (there is no {folder.name}/model_index.json)"
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return nothing
    keys = config if isinstance(config, dict) else ()
    return next((said for key, said in KINDS.items() if key in keys), nothing)
