"""Peak memory and time of a Fréchet distance over 2,000 and over 50,000 generated 32 x 32 images.

The sampler is trivially cheap (smooth random colour images) and the extractor a small network of random weights with
as many features as Inception has, so that what grows with the number of samples shows: 50,000 images are 146 MiB in
eight bits, their features 391 MiB. "Above the start" is the most that is in memory when a batch is drawn, over that
at the second: the first is for what is allocated once, and what the distance takes at the end would hide the images.
Each number of samples runs in a process of its own, against the same reference, which is ready before the clock
starts.

    python examples/benchmarks/evaluate.py --out examples/benchmarks/evaluate.json
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from dxmi_plugins.evaluators.extractors.classifier import Classifier

from dxmi.api import Evaluator, randn
from dxmi.config import build_plugin
from dxmi.data import Images
from dxmi.evaluation import KeptSamples, measure

FEATURES = 2048
GROWTH = 60  # MiB; 50,000 images in eight bits are 146


class Clouds:
    """Images (n,3,32,32): noise of 4 x 4, enlarged."""

    per_sample = True
    seconds = 0.0

    def __init__(self):
        self.memory: list[float] = []  # before each batch, MiB

    def __call__(self, n, steps, generator):
        """N of them, each from its own generator."""
        self.memory.append(resident())
        start = time.perf_counter()
        small = randn((n, 3, 4, 4), torch.zeros(()), generator)
        images = torch.nn.functional.interpolate(small, size=32, mode="bilinear")
        self.seconds += time.perf_counter() - start
        return images.clamp(-1, 1)


def timed(extractor) -> list[float]:
    """Make the extractor's network note its seconds in the list."""
    seconds, forward = [0.0], extractor.network.forward

    def clocked(pixels):
        start = time.perf_counter()
        found = forward(pixels)
        seconds[0] += time.perf_counter() - start
        return found

    extractor.network.forward = clocked
    return seconds


def peak() -> float:
    """This process's peak memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
    """What this process has in memory now, MiB."""
    return psutil.Process().memory_info().rss / 2**20


def one(n: int, extractor: str) -> dict:
    """The distance of n images, the process's peak memory and where the time of one image went."""
    pixels = torch.randint(0, 256, (2500, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    judge = build_plugin(
        Evaluator, {"name": "fidelity", "extractor": extractor, "metrics": ["fid"], "samples": n, "cache": False}
    )
    reference, accelerator, draw = Images(pixels, "noise"), Accelerator(cpu=True), Clouds()
    judge(lambda n: reference[:], reference)  # the reference's moments are kept
    seconds = timed(judge.extractor)
    draw.seconds, start = 0.0, time.perf_counter()
    found = measure([judge], reference, KeptSamples(draw, 1, 0, accelerator))
    whole = time.perf_counter() - start
    parts = {"sampling": draw.seconds, "features": seconds[0], "rest": whole - draw.seconds - seconds[0]}
    return {
        "samples": found["samples"],
        "metrics": found["metrics"],
        "peak_mib": round(peak(), 1),
        "above_start_mib": round(max(draw.memory) - draw.memory[1], 1),
        **{f"{name}_us": round(spent / n * 1e6, 1) for name, spent in parts.items()},
    }


def network(folder: Path) -> str:
    """A classifier of random weights; its features stand for any."""
    torch.manual_seed(0)
    path = folder / "random.safetensors"
    Classifier(channels=3, classes=10, width=8, features=FEATURES).eval().save(path)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs=2, default=[2000, 50_000], help="fewer and more")
    parser.add_argument("--one", nargs=2, metavar=("N", "EXTRACTOR"), help="a single measurement, as JSON")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(int(given.one[0]), given.one[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        path, rows = network(Path(folder)), []
        for n in given.samples:
            command = [sys.executable, __file__, "--one", str(n), path]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(told.splitlines()[-1]))
            row = rows[-1]
            print(
                f"{n} samples: peak {row['peak_mib']} MiB, {row['above_start_mib']} above the start; an image takes "
                f"{row['sampling_us']} us to draw, {row['features_us']} for its features, {row['rest_us']} for files, "
                "pixels and moments"
            )
    ratio = rows[1]["peak_mib"] / rows[0]["peak_mib"]
    print(f"peak memory at {given.samples[1]} over that at {given.samples[0]}: {ratio:.3f}")
    growth = rows[1]["above_start_mib"] - rows[0]["above_start_mib"]
    print(f"growth above the start between the two: {growth:.1f} MiB")
    if given.out:
        versions = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
        found = {"rows": rows, "peak_ratio": round(ratio, 3), "growth_mib": round(growth, 1)}
        given.out.write_text(json.dumps({**versions, **found}, indent=1) + "\n")
    sys.exit(0 if ratio <= 1.2 and growth < GROWTH else 1)


if __name__ == "__main__":
    main()
