"""What the parts of nine_minutes.py share: what was asked for, how large all is, and what earlier parts have left."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from budget import Budget
from judge import Judge

from dxmi.api import ConfigError
from dxmi.data import Images

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sizes:
    """How large all is; the defaults are for a GPU."""

    samples: int = 10_000
    """of each row that is judged"""
    looks: int = 2_000
    """of a proxy while a game is played"""
    unipc: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 10)
    ddim: int = 50
    steps: int | None = None
    """most steps of the teacher's training; None: as many as there is time for"""
    rounds: int | None = None
    """most rounds of a game, and of its warm start"""
    trial: int = 8
    """rounds that a game is timed by"""
    paths: int = 16_384
    """most paths of a warm start"""
    teacher: dict[str, Any] = field(default_factory=dict)
    """keys laid over the teacher's config"""
    game: dict[str, Any] = field(default_factory=dict)
    """keys laid over a game's config"""
    tests: str | None = None
    """which device tests, as of pytest's -k; None: all"""


SMALL_UNET = {
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "add_attention": False,
}
TINY = Sizes(
    samples=16,
    looks=8,
    unipc=(2, 4),
    ddim=5,
    steps=4,
    rounds=4,
    trial=1,
    paths=8,
    teacher={"unet": SMALL_UNET, "data.batch_size": 4, "warmup": 2},
    game={"data.batch_size": 4, "energy.width": 8, "game.warm_start.steps": 4, "draw_batch": 8},
    tests="penalties",
)


@dataclass
class Job:
    """One run of the script.

    Args:
        data: images as Parquet, a file or a folder of them
        column: of the images
        out: what is left goes there
        work: runs go there
        sizes: how large all is
        budget: deadlines of the parts
        device: where all happens
        compiled: whether the teacher's training is compiled
        teacher: a pipeline to go on from, and later the one that was trained
    """

    data: str
    column: str
    out: Path
    work: Path
    sizes: Sizes
    budget: Budget
    device: torch.device
    compiled: bool
    teacher: Path | None = None
    students: dict[str, Path] = field(default_factory=dict)
    """pipelines of the games by name, as t4"""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """what the judge found"""
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """what was logged while something learned"""
    decoding: float = 0.0
    """seconds that reading the images took"""

    @cached_property
    def images(self) -> Images:
        """All images, decoded once."""
        from dxmi.config import DataConfig
        from dxmi.data import load_images

        begin = time.monotonic()
        images = load_images(DataConfig(path=self.data, column=self.column))
        self.decoding = time.monotonic() - begin
        return images

    @cached_property
    def accelerator(self) -> Accelerator:
        """One process on one device."""
        return Accelerator()

    @cached_property
    def judge(self) -> Judge:
        """What measures samples against the images."""
        extractors = [str(ROOT / "examples" / "extractors" / "cifar10.safetensors"), "efficientnet_lite0"]
        return Judge(self.images, extractors, self.sizes.samples, self.accelerator)

    def needs_teacher(self) -> Path:
        """The teacher's folder. Raises ConfigError if no part has left one."""
        if self.teacher is None:
            raise ConfigError("teacher", "there is none", "give --teacher, or a part before that trains one")
        return self.teacher

    def synchronised(self) -> float:
        """Seconds on the clock when the device has done all that it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


def read_lines(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl; none where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
