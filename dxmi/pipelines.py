"""Images from diffusers pipelines, and what other folders are that somebody may take for one."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Generator, Tensor

from dxmi import plugins
from dxmi.errors import ConfigError, first_line

KINDS = {  # by a key of its config.json
    "plugin": "is an energy; rank data with 'dxmi score', or start 'dxmi train' from it with energy_weights",
    "score": "is a score network; draw with dxmi.score_network.load_score and an annealed-Langevin scheduler",
    "class": "is a sampler alone; give the folder of its run",
}


def sample_pipeline(source: str, n: int, steps: int | None, seed: int) -> Tensor:
    """N images (n,C,H,W) in [-1, 1] from a run's pipeline, a pipeline folder or a hub id.

    Raises:
        ConfigError: there is no such pipeline, or it cannot make that many steps
    """
    from diffusers import DiffusionPipeline

    folder = Path(source) / "pipeline" if (Path(source) / "run.yaml").exists() else Path(source)
    if folder.exists() and not (folder / "model_index.json").exists():
        raise ConfigError(f"{source}: {what_else(folder)}")
    for scheduler in (*plugins.installed("dxmi.schedulers").values(), *plugins.installed("dxmi.diffusers").values()):
        if scheduler.problem is None:
            scheduler.load()  # diffusers loads no class that was not imported
    try:
        pipeline = DiffusionPipeline.from_pretrained(str(folder) if folder.exists() else source)
    except (OSError, ValueError, KeyError) as error:
        absent = "there is no such folder, and the hub has it not or is out of reach"
        why = first_line(error) if folder.exists() else absent
        raise ConfigError(f"{source}: no pipeline can be loaded from it: {why}") from error
    options = usual_steps(pipeline) if steps is None else {"num_inference_steps": steps}
    pipeline.to(Accelerator().device)
    try:
        images = pipeline(batch_size=n, generator=Generator().manual_seed(seed), output_type="np", **options).images
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--steps: {error}") from error
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


def usual_steps(pipeline: Any) -> dict[str, int]:
    """What a pipeline asks its scheduler for where nobody says, or all levels of a scheduler that has fewer."""
    asked = inspect.signature(pipeline.__call__).parameters.get("num_inference_steps")
    levels = pipeline.scheduler.config.get("num_train_timesteps")
    return {} if asked is None or levels is None else {"num_inference_steps": min(asked.default, levels)}


def what_else(folder: Path) -> str:
    """What a folder (or file) without ``model_index.json`` is, and what can be done with it."""
    nothing = f"is no diffusers pipeline (there is no {folder.name}/model_index.json)"
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return nothing
    keys = config if isinstance(config, dict) else ()
    return next((said for key, said in KINDS.items() if key in keys), nothing)
