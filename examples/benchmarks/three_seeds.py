"""The main job with seeds 0, 1 and 2: the student against its teacher's best training-free solvers.

    python examples/benchmarks/three_seeds.py --out examples/benchmarks/three_seeds.json

Each seed is one ``dxmi train`` in a process of its own; wall time, CPU-seconds and peak memory are those of that
process. With ``--keep FOLDER`` the runs stay there, and one that is already there is read and not played again.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "configs" / "digits_t4.yaml"
FIGURES = ("fd_digits", "fd_digits_shares_right", "class_tv", "class_share_min", "class_share_max", "recall")


def run(seed: int, folder: Path) -> dict:
    """The figures of one seed, and what it took."""
    out = folder / str(seed)
    if not (out / "evaluation.json").exists():
        play(seed, out)
    evaluation = json.loads((out / "evaluation.json").read_text())
    rows = {f"{row['name']}_{row['steps'] or ''}".strip("_"): row["metrics"] for row in evaluation["rows"]}
    told = {name: {key: metrics[key] for key in FIGURES if key in metrics} for name, metrics in rows.items()}
    cost = out / "cost.json"
    return {
        "seed": seed,
        "rows": told,
        "floor": {key: value for key, value in rows["student_4"].items() if "floor" in key},
        "cost": json.loads(cost.read_text()) if cost.exists() else None,
        "stamp": evaluation["stamp"],
    }


def play(seed: int, out: Path) -> None:
    """One run, and its cost beside it."""
    command = [sys.executable, "-m", "dxmi", "train", CONFIG, "--seed", seed, "--out", out]
    start = time.time()
    child = subprocess.Popen([str(part) for part in command])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"seed {seed}: dxmi train ended with status {os.waitstatus_to_exitcode(status)}")
    cost = {
        "wall_seconds": round(time.time() - start),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime),
        "peak_memory_gib": round(usage.ru_maxrss / 2**20, 2),
    }
    (out / "cost.json").write_text(json.dumps(cost) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--keep", type=Path, help="folder that the runs stay in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(seed, given.keep or Path(folder)) for seed in given.seeds]
    medians = {
        f"median_{name}": {key: statistics.median(each["rows"][name][key] for each in runs) for key in figures}
        for name, figures in runs[0]["rows"].items()
        if name in ("student_4", "teacher-unipc_10")
    }
    machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    print(json.dumps({**medians, **machine}, indent=2))
    if given.out:
        given.out.write_text(json.dumps({**medians, **machine, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
