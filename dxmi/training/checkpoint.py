"""The state that a killed run needs to go on: written to a temporary name, then renamed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dxmi.api import ConfigError
from dxmi.api.files import whole_file
from dxmi.config import Checked, TrainConfig
from dxmi.config.yaml_files import differences
from dxmi.runs.folder import Run, holds_network


def save(accelerator: Accelerator, run: Path, step: int) -> None:
    """All players, optimisers, registered objects and random states -> ``checkpoints/step-000500``; older ones go.

    Every process writes its part into ``checkpoints/partial``, which the main one renames when all have.
    """
    folder = run / "checkpoints" / f"step-{step:06d}"
    partial = folder.with_name("partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        older = saved(run)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        for path in older:
            if path != folder:
                shutil.rmtree(path)
    accelerator.wait_for_everyone()


def saved(run: Path) -> list[Path]:
    """Complete checkpoints, the oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def last(run: Path) -> str:
    """What is left to somebody whose run has failed, in words."""
    checkpoints = saved(run)
    if not checkpoints:
        return "no checkpoint was due yet"
    return f"{checkpoints[-1]} is kept"


def restore(accelerator: Accelerator, run: Path) -> None:
    """Load the newest checkpoint and drop what ``metrics.jsonl`` logged after it; without one, start over."""
    checkpoints = saved(run)
    step = int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0
    if checkpoints:
        accelerator.load_state(str(checkpoints[-1]))
    if accelerator.is_main_process:
        truncate(run / "metrics.jsonl", step)


def truncate(metrics: Path, step: int) -> None:
    """Keep the lines up to ``step``; a line that was cut off goes too."""
    kept = []
    for line in metrics.read_text().splitlines() if metrics.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break
    with whole_file(metrics) as draft:
        draft.write_text("".join(line + "\n" for line in kept))


def refuse(run: Path, resume: bool, resolved: dict[str, Any]) -> None:
    """Raise ConfigError if folder and ``resume`` do not fit, or that run has another config than ``resolved``."""
    before = Run.find(run)
    if run.is_file():
        raise ConfigError("out", f"{run} is a file", "give a folder")
    if not resume and holds_network(run):
        raise ConfigError("out", f"{run} already holds a network of 'dxmi pretrain'", "give another folder")
    if before is not None and not resume:
        raise ConfigError(
            "out", f"{run} already holds a run", "give another folder, or --resume (resume=True) to go on with it"
        )
    if resume and before is None:
        raise ConfigError("resume", f"{run} holds no run", "leave it out to start one")
    differing = differences(completed(before.config), resolved) if before is not None else []
    if resume and differing:
        raise ConfigError("resume", f"the config differs from {run / 'run.yaml'}: {'; '.join(differing)}")


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run of an earlier version with the keys that have come since, at their defaults.

    One that this version does not take stays as it is, so that the difference tells which key.
    """
    try:
        return Checked(TrainConfig, config).resolved
    except ConfigError:
        return config
