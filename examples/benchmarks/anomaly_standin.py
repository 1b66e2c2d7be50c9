"""examples/anomaly_standin.py with several seeds: the AUROC of every score on the synthetic stand-in.

    python examples/benchmarks/anomaly_standin.py --out examples/benchmarks/anomaly_standin.json

Each seed is the example in a process of its own. No figure says anything about MVTec.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parents[1] / "anomaly_standin.py"


def run(seed: int, folder: Path, more: list[str]) -> dict:
    """The figures of one seed, all rows of the example's table."""
    out, before = folder / str(seed), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, EXAMPLE, "--seed", seed, "--out", out, *more]
    subprocess.run([str(part) for part in command], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seed": seed, "auroc": json.loads((out / "figures.json").read_text()), "cpu_seconds": round(spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given, more = parser.parse_known_args()  # the rest is the example's own, as --steps
    facts = {"machine": platform.machine(), "python": platform.python_version()}
    facts |= {"dxmi": version("dxmi"), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(seed, Path(folder), more) for seed in given.seeds]
    if given.out:
        given.out.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
