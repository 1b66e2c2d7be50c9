"""What a run's folder is."""

from __future__ import annotations

import json
from pathlib import Path

from dxmi.api.errors import require
from dxmi.config.yaml_files import read


def own_prompts(folder: Path) -> list[str]:
    """The prompts that a run's samples were drawn at; none of other folders."""
    sampler = read(folder / "run.yaml").get("sampler") if (folder / "run.yaml").exists() else None
    return sampler.get("prompts") or [] if isinstance(sampler, dict) else []


def is_density_run(folder: Path) -> bool:
    """Whether a run has no images: it learned from a known density or from vectors, or holds chains."""
    if not (folder / "run.yaml").exists():
        return not (folder / "model_index.json").exists() and (folder / "sampler").is_dir()
    from dxmi.config.yaml_files import read

    config = read(folder / "run.yaml")
    if config.get("data") is None or (folder / "pipeline").exists():
        return config.get("data") is None
    shape = learned_shape(folder)
    require(shape is not None, folder, "holds no finished run", "'dxmi train ... --resume' goes on with it")
    return len(shape or ()) != 3


def learned_shape(folder: Path) -> list[int] | None:
    """S of the data that a run's energy was learned from; None where it left none."""
    try:
        found: list[int] = json.loads((folder / "energy" / "config.json").read_text())["shape"]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None
