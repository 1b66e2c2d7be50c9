r"""The digits teacher under four solvers at six numbers of steps, and its student of four steps, in one report.

    python examples/benchmarks/solver_sweep.py --out examples/results/solvers

Plays ``dxmi train configs/digits_td.yaml`` first, unless --student names such a run. Leaves table.md, report.json and
picture.png: Fréchet distance over the digits classifier's features against calls of the network, the floor dashed.
The other options are for another teacher; that of CIFAR-10 in examples/results/cifar10 is made by

    dxmi pretrain configs/cifar10_small_teacher.yaml --out runs/cifar10_small_teacher
    dxmi train configs/cifar10_small.yaml --out runs/cifar10_small
    python examples/benchmarks/solver_sweep.py --teacher runs/cifar10_small_teacher --student runs/cifar10_small \
        --reference train.parquet --floor test.parquet --extractor examples/extractors/cifar10.safetensors \
        --steps 1 4 10 50 -n 300 --out examples/results/cifar10
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import dxmi
from dxmi.evaluation import Report

ROOT = Path(__file__).parents[2]
SOLVERS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
]
STEPS = [1, 2, 4, 10, 20, 50]


def trained(config: Path, folder: Path) -> Path:
    """A run of a config."""
    command = [sys.executable, "-m", "dxmi", "train", config, "--out", folder]
    quick = ["--evaluators", "[]", "--tracker", "null"]  # it is measured here
    subprocess.run([*map(str, command), *quick], check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> None:
    examples = ROOT / "examples"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default=str(examples / "teachers" / "digits"), help="pipeline folder or hub id")
    parser.add_argument("--reference", default=str(examples / "data" / "digits.parquet"), help="dataset")
    parser.add_argument("--floor", default="halves", help="dataset that stands for perfect samples, or halves")
    parser.add_argument("--extractor", default=str(examples / "extractors" / "digits.safetensors"))
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "digits_td.yaml", help="of the student")
    parser.add_argument("--student", type=Path, help="a finished run of it")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-n", type=int, default=1797, help="samples of each seed")
    parser.add_argument("--out", type=Path, help="folder for table, JSON and picture")
    given = parser.parse_args()
    settings = {
        "metrics": ["fid", "kid", "prc"],
        "extractor": given.extractor,
        "n": given.n,
        "seeds": given.seeds,
        "batch_size": 256,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = given.student or trained(given.config, Path(folder) / "run")
        student = dxmi.evaluate(run, given.reference, floor=None, **settings)
    solvers = {"schedulers": SOLVERS, "steps": given.steps, "floor": given.floor}
    teacher = dxmi.evaluate(given.teacher, given.reference, **solvers, **settings)
    if student.stamp != teacher.stamp:
        sys.exit("student and teacher were not measured alike")
    report = Report([*(row | {"name": "student"} for row in student.rows), *teacher.rows], teacher.stamp)
    print(report.table())
    if given.out:
        report.save(given.out)


if __name__ == "__main__":
    main()
