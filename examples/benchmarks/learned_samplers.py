"""Value-gradient samplers trained on known densities: log Z, ESS and modes, median over seeds.

    python examples/benchmarks/learned_samplers.py --out examples/benchmarks/learned_samplers.json

Each row is one ``dxmi train configs/<target>_vgs.yaml`` in its own process; the figures are from its evaluation.json.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file

from dxmi.api import Energy
from dxmi.config import build_plugin
from dxmi.dialect import read

CONFIGS = Path(__file__).parents[2] / "configs"


def run(target: str, seed: int, folder: Path) -> dict:
    """The figures of one seed."""
    config, out = CONFIGS / f"{target}_vgs.yaml", folder / f"{target}-{seed}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dxmi", "train", config, "--seed", str(seed), "--out", out, "--tracker", "null"]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metrics = json.loads((out / "evaluation.json").read_text())["rows"][0]["metrics"]
    return {"seed": seed, "cpu_seconds": round(spent), **metrics, **modes(config, out)}


def modes(config: Path, out: Path) -> dict:
    """How many modes of a mixture at least half their share of the samples went to, by the nearest."""
    means = getattr(build_plugin(Energy, read(config)["energy"]), "modes", None)
    if means is None:
        return {}
    nearest = torch.cdist(load_file(out / "samples.safetensors")["samples"], means).argmin(1)
    shares = nearest.bincount(minlength=len(means)) / len(nearest) * len(means)
    return {"modes": int((shares > 0.5).sum()), "of": len(means), "least_share": shares.min().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=["gmm9", "gmm25"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    rows = {}
    print(f"{'target':<10} {'|log Z error|':>14} {'ESS':>6} {'modes':>7} {'CPU-s':>6}   (medians)")
    with tempfile.TemporaryDirectory() as folder:
        for target in given.targets:
            found = [run(target, seed, Path(folder)) for seed in given.seeds]
            middle = {
                "log_z_error": statistics.median(abs(row["log_z"] - row["log_z_exact"]) for row in found),
                "ess": statistics.median(row["ess"] for row in found),
                "modes": statistics.median(row.get("modes", 0) for row in found),
                "cpu_seconds": statistics.median(row["cpu_seconds"] for row in found),
            }
            rows[target] = {"median": middle, "runs": found}
            of = found[0].get("of", "-")
            print(
                f"{target:<10} {middle['log_z_error']:>14.4f} {middle['ess']:>6.3f} {middle['modes']:>4}/{of:<3}"
                f"{middle['cpu_seconds']:>6}",
                flush=True,
            )
    facts = {"machine": platform.machine(), "python": platform.python_version(), "torch": version("torch")}
    if given.out:
        given.out.write_text(json.dumps({**facts, "targets": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
