"""What adapters cost beside full fine-tuning: parameters that learn, saved size, peak memory.

The tests' tiny Stable Diffusion from random weights, and the same with a UNet of ``--width`` channels at its first
level. Each way plays a few rounds of the game in a process of its own, three times, each right after a process that has
imported everything and made no network. What is told is the median of how much higher its peak was (CPU: the largest
resident set, as Linux tells it; CUDA: most memory allocated); where the three differ by more than 20 MB it refuses.

    python examples/benchmarks/lora.py --out examples/benchmarks/lora.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from diffusers import UNet2DConditionModel
from dxmi_plugins.energies.conv import ConvEnergy
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora
from dxmi_plugins.schedulers.ancestral import AncestralScheduler

from dxmi.config import GameConfig
from dxmi.game.algorithm import build_game

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from tiny import sd  # noqa: E402

RANK = 8
REPEATS, SPREAD_MB = 3, 20
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back, so that no holes count as memory in use
WAYS = {
    "full": {},
    "full, checkpointing": {"checkpointing": True},
    "lora": {"lora": Lora(rank=RANK)},
    "lora, bfloat16": {"lora": Lora(rank=RANK), "precision": "bfloat16"},
    "lora, bfloat16, checkpointing": {"lora": Lora(rank=RANK), "precision": "bfloat16", "checkpointing": True},
}


def save_teacher(folder: Path, width: int | None, size: int) -> Path:
    """The tiny pipeline, for images of ``size`` pixels and latents of half of it, with a larger UNet if asked."""
    torch.manual_seed(0)
    pipeline = sd(size=size)
    if width is not None:
        unet = UNet2DConditionModel(
            sample_size=size // 2,
            block_out_channels=(width, 2 * width, 4 * width),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=pipeline.unet.config.cross_attention_dim,
        )
        pipeline.register_modules(unet=unet)
    pipeline.save_pretrained(folder)
    return folder


def peak() -> float:
    """Most memory this process has held, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()  # getrusage would begin at the peak of the process that started it
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def play(way: str, teacher: Path, rounds: int, batch: int) -> dict:
    """A few rounds of the game; what learned, what it took and what is left of it on disk."""
    if way == "nothing":
        return {"peak": peak()}
    options = WAYS[way]
    torch.manual_seed(0)
    sampler = DiffusionSampler(str(teacher), AncestralScheduler(2), prompts=["a digit"], **options)
    energy, shape = ConvEnergy(width=8, blocks=2), (batch, *sampler.teacher.shape)
    energy(torch.zeros(1, *shape[1:]))
    game = build_game(energy, sampler, game=GameConfig(warmup=0))
    data, start = torch.randn(shape, device=sampler.log_std.device), time.process_time()
    for _ in range(rounds):
        game.round(data, shape, sampler.conditions(batch))
    found = {"peak": peak(), "cpu_seconds_a_round": round((time.process_time() - start) / rounds, 2)}
    network = sampler.network
    with tempfile.TemporaryDirectory() as folder:
        if "lora" in options:
            sampler.save_lora(Path(folder))
        else:
            network.save_pretrained(folder)
        saved = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "learn": learns,
        "saved_mb": saved / 1e6,
        **found,
    }


def measure(width: int | None, size: int, given: argparse.Namespace) -> dict:
    """A row for each way."""
    rows: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        teacher = save_teacher(Path(folder), width, size)
        options = ["--teacher", teacher, "--rounds", given.rounds, "--batch", given.batch]
        for way in WAYS:
            pairs = [(alone("nothing", *options), alone(way, *options)) for _ in range(REPEATS)]
            above = [row.pop("peak") - nothing["peak"] for nothing, row in pairs]
            if max(above) - min(above) > SPREAD_MB:
                raise SystemExit(f"{way}: peaks of {above} MB above nothing are too far apart; leave the machine alone")
            seconds = median(row.pop("cpu_seconds_a_round") for _, row in pairs)
            rows[way] = pairs[0][1] | {
                "cpu_seconds_a_round": seconds,
                "peak_mb_above_nothing": round(median(above), 1),
                "spread_mb": round(max(above) - min(above), 1),
                "nothing_mb": [round(nothing["peak"], 1) for nothing, _ in pairs],
            }
            print(f"{way:<30}", *(f"{key} {value}" for key, value in rows[way].items()), sep="  ", flush=True)
    return {"latents": size // 2, "ways": rows}


def alone(way: str, *options: object) -> dict:
    """What ``play`` finds in a process of its own."""
    command = [sys.executable, __file__, "--way", way, *map(str, options)]
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ALLOCATOR})
    if told.returncode:
        raise SystemExit(told.stderr[-2000:])
    return json.loads(told.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128, help="channels of the larger UNet's first level")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--way", choices=["nothing", *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--teacher", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.way:
        print(json.dumps(play(given.way, given.teacher, given.rounds, given.batch)))
        return
    found = {"tiny": measure(None, 8, given), f"width {given.width}": measure(given.width, 32, given)}
    facts = {"rank": RANK, "rounds": given.rounds, "batch": given.batch, "repeats": REPEATS}
    facts["machine"] = platform.machine()
    facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {package: version(package) for package in ("dxmi", "torch", "diffusers", "peft")}
    if given.out:
        given.out.write_text(json.dumps({**facts, **versions, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
