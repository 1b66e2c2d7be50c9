"""Whether a run fits the machine: its processes and its memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from dxmi.api import ConfigError
from dxmi.config.run import TrainConfig


def check_processes(accelerator: Accelerator) -> None:
    """Raise ConfigError if a launcher started several processes of which accelerate knows none but this one."""
    started = os.environ.get("WORLD_SIZE", "1")
    if started != "1" and accelerator.num_processes == 1:
        reason = f"{started} processes were started, and each would run alone"
        raise ConfigError("WORLD_SIZE", reason, "on CPUs set ACCELERATE_USE_CPU=true")


def check_memory(run: TrainConfig, shape: tuple[int, ...], device: torch.device) -> None:
    """Whether the persistent chains and the kept states fit into memory.

    Args:
        run: the config
        shape: of one event, (*S)
        device: where they lie

    Raises:
        ConfigError: they do not
    """
    kept = {}  # and what lies beside them for a while
    if run.data is not None and run.game.start == "chains":
        kept["game.chains"] = (run.game.chains, run.data.batch_size)
    if run.replay is not None:  # the old states and the new ones, while some are taken in
        kept["replay.size"] = (run.replay.size, run.replay.size + max(run.batch_size, run.replay.batch))
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    for key, (states, beside) in kept.items():
        need = (states + beside) * math.prod(shape) * torch.get_default_dtype().itemsize
        if need > free:
            room = f"{need / 2**30:.3g} GiB and {free / 2**30:.3g} GiB are free"
            raise ConfigError(key, f"{states} states of {math.prod(shape)} numbers take {room}", "lower it")


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the machine has, or less where a container (cgroup v2) is limited.

    Cached files that nobody has read lately count as free, as they do for the machine. psutil knows no containers.

    Args:
        cgroup: where the kernel says what a container may take
    """
    free: int = psutil.virtual_memory().available
    try:
        limit, used = ((cgroup / f"memory.{what}").read_text().strip() for what in ("max", "current"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used) + int(stat["inactive_file"])))
