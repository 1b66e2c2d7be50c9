"""The digits teacher under four solvers at six numbers of steps, and its student of four steps, in one report.

    python examples/benchmarks/solver_sweep.py --out examples/results/solvers

Plays ``dxmi train configs/digits.yaml`` first, unless --student names such a run. Leaves table.md, report.json and
picture.png: Fréchet distance over the digits classifier's features against calls of the network, the floor dashed.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import dxmi
from dxmi.report import Report

ROOT = Path(__file__).parents[2]
SOLVERS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
]
STEPS = [1, 2, 4, 10, 20, 50]


def trained(folder: Path) -> Path:
    """A run of the embedded default."""
    command = [sys.executable, "-m", "dxmi", "train", ROOT / "configs" / "digits.yaml", "--out", folder]
    quick = ["--evaluators", "[]", "--tracker", "null"]  # it is measured here
    subprocess.run([*map(str, command), *quick], check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="a finished run of configs/digits.yaml")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-n", type=int, default=1797, help="samples of each seed")
    parser.add_argument("--out", type=Path, help="folder for table, JSON and picture")
    given = parser.parse_args()
    examples = ROOT / "examples"
    settings = {
        "metrics": ["fid", "kid", "prc"],
        "extractor": str(examples / "extractors" / "digits.safetensors"),
        "n": given.n,
        "seeds": given.seeds,
        "batch_size": 256,
    }
    digits = examples / "data" / "digits.parquet"
    with tempfile.TemporaryDirectory() as folder:
        run = given.student or trained(Path(folder) / "run")
        student = dxmi.evaluate(run, digits, floor=None, **settings)
    teacher = dxmi.evaluate(examples / "teachers" / "digits", digits, schedulers=SOLVERS, steps=given.steps, **settings)
    if student.stamp != teacher.stamp:
        sys.exit("student and teacher were not measured alike")
    report = Report([*(row | {"name": "student"} for row in student.rows), *teacher.rows], teacher.stamp)
    print(report.table())
    if given.out:
        report.save(given.out)


if __name__ == "__main__":
    main()
