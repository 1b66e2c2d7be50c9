"""All that one GPU can say of CIFAR-10 in nine minutes: tests, a teacher, students of four steps and of one, figures.

    python examples/gpu/nine_minutes.py --data train.parquet --out results

reads CIFAR-10's training images from Parquet and leaves in --out

    report.json     versions, machine, seconds and results of each part, or the line that says why it failed
    curves.png      losses and distances
    grids.png       images of the data, the teacher and the students
    teacher/        the teacher in half precision, which --teacher goes on from

The time is split over the parts by ``SHARES``; what one leaves the next one gets, and one that fails leaves the others
alone. Exit status: 0 done, 1 a part failed, 2 what you gave is wrong.

    python examples/gpu/nine_minutes.py --data train.parquet --out results --device cpu --minutes 0.5 --tiny

tries all of it at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budget import Budget, OutOfTime

if TYPE_CHECKING:
    from job import Job

SHARES = {"data": 0.05, "checks": 0.10, "teacher": 0.33, "t4": 0.21, "t1": 0.11, "evaluate": 0.17, "pictures": 0.03}
LARGEST = 16_000_000  # bytes of a file in --out, so that all of them are easily carried away
PACKAGES = ("dxmi", "torch", "diffusers", "accelerate", "datasets", "transformers", "peft", "numpy", "torch-fidelity")
Part = Callable[["Job"], dict[str, Any]]


def parts() -> dict[str, Part]:
    """What there is to do, in this order."""
    from compare_solvers import evaluate_part
    from pictures import pictures_part
    from play_games import game_part
    from run_checks import checks_part
    from train_teacher import teacher_part

    return {
        "data": lambda job: {"images": len(job.images), "shape": job.images.event_shape, **job.images.stamp()},
        "checks": checks_part,
        "teacher": teacher_part,
        "t4": lambda job: game_part(job, "t4"),
        "t1": lambda job: game_part(job, "t1"),
        "evaluate": evaluate_part,
        "pictures": pictures_part,
    }


def run_parts(chosen: Mapping[str, Part], job: Job, report: dict[str, Any]) -> None:
    """One part after the other; ``report["parts"]`` has what each found, its seconds and why it failed, or None."""
    from judge import likened

    report["parts"] = {}
    for name, part in chosen.items():
        begin = job.budget.clock()
        tell(f"{name}: {job.budget.left(name):.0f} seconds")
        try:
            with job.budget.limit(name):
                found = {"error": None, **part(job)}
        except (Exception, OutOfTime) as error:  # the other parts go on, whatever it is
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}
        seconds = {"seconds": round(job.budget.clock() - begin, 1)}
        report["parts"][name] = seconds | found
        report["seconds"] = round(job.budget.clock() - job.budget.begin, 1)
        report |= {"rows": job.rows, "like": likened(job.rows, "unipc")}
        (job.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        tell(f"{name}: {found['error'] or 'done'}, {seconds['seconds']} s")


def tell(line: str) -> None:
    """A line for the person who waits."""
    print(f"[nine minutes] {line}", flush=True)


def machine(device: Any) -> dict[str, Any]:
    """What this runs on."""
    import torch

    found = {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        memory = round(about.total_memory / 2**30, 1)
        found |= {"gpu": about.name, "gpu_memory_gib": memory, "cuda": torch.version.cuda}
    return found


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that matter; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def too_large(folder: Path) -> dict[str, int]:
    """Bytes of the files that are larger than ``LARGEST``."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return {name: size for name, size in files.items() if size > LARGEST}


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10's training images: a Parquet file or a folder of them")
    parser.add_argument("--column", default="image", help="column of the images")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is left")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all, from the start of the script")
    parser.add_argument("--teacher", type=Path, help="a teacher that this script left, to go on from")
    parser.add_argument("--parts", default=",".join(SHARES), help="some of them, which share the time (default: all)")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs of the games (default: they go)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--no-compile", action="store_true", help="train the teacher without torch.compile")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    return parser


def shares(given: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, float]:
    """Those of the parts that are asked for; the parser ends with what is wrong."""
    asked = [name.strip() for name in given.parts.split(",") if name.strip()]
    for name in asked:
        if name not in SHARES:
            parser.error(f"argument --parts: there is no '{name}', but {', '.join(SHARES)}")
    if not asked:
        parser.error("argument --parts: the list is empty")
    if not given.minutes > 0:
        parser.error(f"argument --minutes: {given.minutes} is not positive")
    if given.teacher is not None and not (given.teacher / "model_index.json").is_file():
        parser.error(f"argument --teacher: {given.teacher} is no diffusers pipeline")
    return {name: share for name, share in SHARES.items() if name in asked}


def prepare(given: argparse.Namespace, work: Path) -> None:
    """What libraries read from the environment when they are imported."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TORCH_HOME", str(work / "torch"))  # moments of the reference
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def main(arguments: list[str] | None = None) -> int:
    """Do the parts that are asked for; the exit status."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    own = shares(given, parser)
    budget = Budget(60 * given.minutes, own)
    with tempfile.TemporaryDirectory(prefix="dxmi-gpu-") as temporary:
        work = (given.runs or Path(temporary)).absolute()
        prepare(given, work)
        import datasets
        import torch
        from diffusers.utils import logging
        from job import TINY, Job, Sizes

        datasets.disable_progress_bars()
        logging.disable_progress_bar()

        if given.device == "cuda" and not torch.cuda.is_available():
            parser.error("argument --device: there is no GPU here; give cpu to try the script")
        gpu = given.device == "cuda"
        torch.backends.cudnn.benchmark = gpu
        torch.set_float32_matmul_precision("high" if gpu else "highest")
        given.out.mkdir(parents=True, exist_ok=True)
        sizes, device = TINY if given.tiny else Sizes(), torch.device(given.device)
        compiled = gpu and not given.no_compile
        job = Job(given.data, given.column, given.out, work, sizes, budget, device, compiled, given.teacher)
        report: dict[str, Any] = {"minutes": given.minutes, "tiny": given.tiny, "versions": versions()}
        report |= {"machine": machine(device), "shares": own}
        known = parts()
        run_parts({name: known[name] for name in own}, job, report)
    large = too_large(given.out)
    for name, size in large.items():
        tell(f"note: {name} has {size} bytes")
    return int(any(part["error"] for part in report["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
