"""Four ways to learn eight Gaussians: DxMI, EBM-VGS, contrastive divergence and persistent contrastive divergence.

    python examples/benchmarks/eight_gaussians.py --out examples/benchmarks/eight_gaussians.json

Each row is the median over seeds of one ``dxmi train configs/eight_gaussians_<way>.yaml`` in its own process. Of the
run's own samples: ``inside``, the share within 3 standard deviations of a mode (exact draws: .989), and the smallest
and largest share of a mode in units of 1/8. Of the energy: the AUROC with which it ranks exact draws below points that
are uniform on [-4, 4]^2.
"""

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.evaluators.anomaly.auroc import auroc
from safetensors.torch import load_file
from torch import Generator, Tensor

from dxmi.api import Energy
from dxmi.runs import load_energy

CONFIGS = Path(__file__).parents[2] / "configs"
WAYS = ["dxmi", "ebm_vgs", "cd", "pcd"]
TARGET, STD, BOX, POINTS = GaussianMixture("eight_gaussians"), 0.1, 4.0, 20_000


def ranking(energy: Energy) -> float:
    """How well an energy tells exact draws from uniform points."""
    generator = Generator().manual_seed(0)
    uniform = BOX * (2 * torch.rand(POINTS, 2, generator=generator) - 1)
    with torch.no_grad():
        scores = torch.cat([energy(TARGET.sample(POINTS, generator)), energy(uniform)])
    return auroc(torch.arange(2 * POINTS) >= POINTS, scores)


def modes(samples: Tensor) -> dict[str, float]:
    """Where the samples are."""
    away, nearest = torch.cdist(samples, TARGET.modes).min(1)
    shares = nearest.bincount(minlength=len(TARGET.modes)) / len(samples) * len(TARGET.modes)
    inside = (away < 3 * STD).float().mean().item()
    return {"inside": inside, "least_share": shares.min().item(), "most_share": shares.max().item()}


def run(way: str, seed: int, folder: Path) -> dict[str, float]:
    """The figures of one seed."""
    out, before = folder / f"{way}-{seed}", resource.getrusage(resource.RUSAGE_CHILDREN)
    config = CONFIGS / f"eight_gaussians_{way}.yaml"
    command = [sys.executable, "-m", "dxmi", "train", config, "--seed", seed, "--out", out, "--tracker", "null"]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    samples = load_file(out / "samples.safetensors")["samples"]
    rows = {row["name"]: row["metrics"] for row in json.loads((out / "evaluation.json").read_text())["rows"]}
    metrics = rows.get("long chain") or rows["student"]  # what the samples are from
    found = {**modes(samples), "auroc": ranking(load_energy(out / "energy")), "w2": metrics["w2"]}
    return {"seed": seed, "samples": len(samples), **found, "cpu_seconds": round(spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each way's first seed")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    rows = {}
    facts = {"machine": platform.machine(), "python": platform.python_version(), "torch": version("torch")}
    names = ["inside", "least_share", "most_share", "auroc", "w2", "cpu_seconds"]
    print(f"exact energy: AUROC {ranking(TARGET):.4f}\n{'':<8}" + "".join(f"{name:>13}" for name in names))
    for way in given.ways:
        with tempfile.TemporaryDirectory() as folder:
            runs = [run(way, seed, Path(folder)) for seed in given.seeds]
            if given.pictures:
                given.pictures.mkdir(parents=True, exist_ok=True)
                picture = Path(folder) / f"{way}-{given.seeds[0]}" / "picture.png"
                shutil.copy(picture, given.pictures / f"eight_gaussians_{way}.png")
        middle = {name: statistics.median(r[name] for r in runs) for name in names}
        rows[way] = {**facts, "median": middle, "runs": runs}
        print(f"{way:<8}" + "".join(f"{middle[name]:>13.4g}" for name in names), flush=True)
    if given.out:
        old = json.loads(given.out.read_text())["ways"] if given.out.exists() else {}
        given.out.write_text(json.dumps({"ways": old | rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
