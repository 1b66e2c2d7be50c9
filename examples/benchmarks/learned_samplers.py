"""Value-gradient samplers trained on known densities: log Z, ESS and modes, median over seeds.

    python examples/benchmarks/learned_samplers.py --out examples/benchmarks/learned_samplers.json

Each row is one ``dxmi train configs/<target>_vgs.yaml`` in its own process; the figures are from its evaluation.json
and samples.safetensors. Targets that are already in the JSON file stay there unless they are asked for again.
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
from dxmi.config import build_plugin, read_yaml

CONFIGS = Path(__file__).parents[2] / "configs"
EXACT = ["gmm9", "gmm25", "funnel", "many_well"]
PARTICLES = ["dw4", "lj13"]
RIGHT_SHARE = 0.8443  # of a pair of wells (MATH 5)


def run(target: str, seed: int, folder: Path) -> dict:
    """The figures of one seed."""
    config, out = CONFIGS / f"{target}_vgs.yaml", folder / f"{target}-{seed}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dxmi", "train", config, "--seed", str(seed), "--out", out, "--tracker", "null"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{target}, seed {seed}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    student, floor = json.loads((out / "evaluation.json").read_text())["rows"]
    distances = {f"{name}_floor": value for name, value in floor["metrics"].items()}
    samples = load_file(out / "samples.safetensors")["samples"]
    found = {"seed": seed, "cpu_seconds": round(spent), "paths": len(samples)}
    fill = json.loads((out / "fill.json").read_text())  # of the chains that the value learned from
    filled = {"fill_log_z": fill["log_z"]} if "log_z" in fill else {}
    return found | student["metrics"] | distances | filled | places(target, config, samples)


def places(target: str, config: Path, samples: torch.Tensor) -> dict:
    """Shares of all the samples: of the modes of a mixture by the nearest, or of the right wells."""
    if target == "many_well":
        right = (samples[:, ::2] > 0).float().mean(0)
        return {"right_least": right.min().item(), "right_most": right.max().item()}
    means = getattr(build_plugin(Energy, read_yaml(config)["energy"]), "modes", None)
    if means is None:
        return {}
    nearest = torch.cdist(samples, means).argmin(1)
    shares = nearest.bincount(minlength=len(means)) / len(nearest) * len(means)
    return {"modes": int((shares > 0.5).sum()), "of": len(means), "least_share": shares.min().item()}


def summary(runs: list[dict]) -> dict:
    """Medians over the seeds; of the shares of wells the worst."""
    ess = [row["ess"] for row in runs]
    middle = {"ess": statistics.median(ess), "ess_least": min(ess), "elbo": statistics.median(r["elbo"] for r in runs)}
    if "log_z_exact" in runs[0]:
        middle["log_z_error"] = statistics.median(abs(row["log_z"] - row["log_z_exact"]) for row in runs)
    for name in ("eubo", "modes", "aligned_w2", "aligned_w2_floor", "energy_w2", "energy_w2_floor", "cpu_seconds"):
        if name in runs[0]:
            middle[name] = statistics.median(row[name] for row in runs)
    if "right_least" in runs[0]:
        middle["well_error"] = max(
            max(row["right_most"] - RIGHT_SHARE, RIGHT_SHARE - row["right_least"]) for row in runs
        )
    return middle


def line(target: str, middle: dict) -> str:
    """A row of the table."""
    shown = {name: f"{value:.4g}" for name, value in middle.items()}
    return f"{target:<10} " + "  ".join(f"{name} {value}" for name, value in shown.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=EXACT, help=f"of {', '.join(EXACT + PARTICLES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    facts = {"machine": platform.machine(), "python": platform.python_version(), "torch": version("torch")}
    for target in given.targets:
        with tempfile.TemporaryDirectory() as folder:
            runs = [run(target, seed, Path(folder)) for seed in given.seeds]
        print(line(target, summary(runs)), flush=True)
        if given.out:
            old = json.loads(given.out.read_text())["targets"] if given.out.exists() else {}
            rows = old | {target: {"median": summary(runs), "runs": runs}}
            given.out.write_text(json.dumps({**facts, "targets": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
