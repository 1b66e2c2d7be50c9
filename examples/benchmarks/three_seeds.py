"""The main job with seeds 0, 1 and 2: the student against the best training-free solver at as many steps, and DDIM-50.

    python examples/benchmarks/three_seeds.py --out examples/benchmarks/three_seeds.json

Each seed is one ``dxmi train`` in a process of its own; wall time and peak memory are those of that process.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


def run(seed: int, folder: Path) -> dict:
    """The figures of one seed."""
    out, start = folder / str(seed), time.time()
    command = [sys.executable, "-m", "dxmi", "train", CONFIG, "--seed", str(seed), "--out", out]
    subprocess.run([str(part) for part in command], check=True)
    seconds = time.time() - start
    evaluation = json.loads((out / "evaluation.json").read_text())
    found = {(row["name"], row["steps"]): row["metrics"]["fd_digits"] for row in evaluation["rows"]}
    student, steps = next((fd, steps) for (name, steps), fd in found.items() if name == "student")
    solver = min(fd for (name, at), fd in found.items() if name.startswith("teacher") and at == steps)
    return {
        "seed": seed,
        "student": student,
        "best_solver_at_same_steps": solver,
        "ratio": student / solver,
        "ddim_50": found["teacher-ddim", 50],
        "floor": found["data-floor", None],
        "wall_seconds": round(seconds),
        "stamp": evaluation["stamp"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(seed, Path(folder)) for seed in given.seeds]
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    summary = {
        "median_ratio": statistics.median(row["ratio"] for row in rows),
        "median_student": statistics.median(row["student"] for row in rows),
        "median_ddim_50": statistics.median(row["ddim_50"] for row in rows),
        "peak_memory_gib": round(gigabytes, 2),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    print(json.dumps(summary, indent=2))
    if given.out:
        given.out.write_text(json.dumps({**summary, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
