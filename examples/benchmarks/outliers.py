"""Energies of the digits as outlier scores: trained without one digit by PCD and by DxMI, AUROC in one table.

For each ``--held-out`` digit: its images are taken out, a fifth of the others is kept for the test, and both energies
learn from the rest (configs/digits_pcd.yaml and configs/digits_td.yaml); so does the teacher that DxMI's sampler starts
from (configs/digits_teacher.yaml), since the shipped one has seen every digit. An AUROC is the share of pairs, one test
image and one outlier, in which the outlier has the higher energy: .5 is chance, and less is told as it is. Outliers are
the held-out digit, the test images with their pixels shuffled, and uniform noise. The yardstick is the distance to the
nearest training image.

    python examples/benchmarks/outliers.py --out examples/benchmarks/outliers.json
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from dxmi_plugins.evaluators.anomaly.evaluator import Anomaly
from torch import Generator, Tensor

from dxmi.api import Labelled
from dxmi.config import Checked, DataConfig, PretrainConfig, TrainConfig, read_yaml
from dxmi.config.yaml_files import put
from dxmi.data import load_images, load_table
from dxmi.evaluation import measure
from dxmi.pretraining import pretrain
from dxmi.runs import load_energy_folder
from dxmi.training.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
LABEL = "label"  # the column with the digit
Score = Callable[[Tensor], Tensor]
"""Images (N,C,H,W) in [-1, 1] -> (N,), high where they are unlike the training images."""


def split(source: DataConfig, held_out: int, path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N,C,H,W) to train on, to test with, and of the digit held out; the first ones also as Parquet."""
    table, images = load_table(source), load_images(source)
    outliers = torch.tensor(table[LABEL]) == held_out
    others = (~outliers).nonzero().flatten()
    tested = torch.arange(len(others)) % 5 == 0
    table.select(others[~tested].tolist()).to_parquet(str(path))
    return images[others[~tested]], images[others[tested]], images[outliers]


def corrupted(images: Tensor, seed: int) -> dict[str, Tensor]:
    """The images (N,C,H,W), each with its pixels in an order of its own, and uniform noise in [-1, 1], by name."""
    generator = Generator().manual_seed(seed)
    order = torch.rand(len(images), images[0, 0].numel(), generator=generator).argsort(1)
    shuffled = images.flatten(2).gather(2, order[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    return {"shuffled pixels": shuffled, "uniform noise": 2 * torch.rand(images.shape, generator=generator) - 1}


def teacher(data: Path, folder: Path, steps: int, seed: int) -> Path:
    """A diffusion model of the training images."""
    config = read_yaml(CONFIGS / "digits_teacher.yaml") | {"seed": seed, "steps": steps}
    config["ema"] = 0.995  # that of the config remembers the first steps of so short a training
    put(config, ["data", "path"], str(data))
    return pretrain(Checked(PretrainConfig, config), folder)


def energy(name: str, changes: dict[str, str], folder: Path, rounds: int | None, seed: int) -> Score:
    """The energy of a run of a config, with what ``changes`` puts at its dotted keys."""
    config = read_yaml(CONFIGS / name) | {"seed": seed, "tracker": None, "evaluators": []}
    for key, value in changes.items():
        put(config, key.split("."), value)
    train(Checked(TrainConfig, config if rounds is None else config | {"steps": rounds}), folder)
    learned, steps = load_energy_folder(folder / "energy")

    @torch.no_grad()
    def score(images: Tensor) -> Tensor:
        return torch.cat([learned(part, torch.full((len(part),), steps)) for part in images.split(256)])

    return score


def nearest(trained: Tensor) -> Score:
    """The distance to the nearest of the images (N,C,H,W)."""
    return lambda images: torch.cdist(images.flatten(1), trained.flatten(1)).amin(1)


def auroc(score: Score, inliers: Tensor, outliers: Tensor) -> float:
    """The share of pairs in which the outlier's score is the higher; ties count half."""
    labels = torch.tensor([0] * len(inliers) + [1] * len(outliers))
    test = Labelled(torch.cat([inliers, outliers]), labels)
    return measure([Anomaly()], test, lambda n: score(test.items[:n]))["metrics"]["det"]


def compare(source: DataConfig, held_out: int, given: argparse.Namespace, folder: Path) -> dict:
    """The figures of one digit, and the CPU-seconds that they took."""
    data, seconds = folder / "train.parquet", {}
    trained, inliers, digit = split(source, held_out, data)

    def timed(name: str, learn: Callable[[], Path | Score]) -> Path | Score:
        start = time.process_time()
        found = learn()
        seconds[name] = round(time.process_time() - start)
        return found

    own = {"data.path": str(data)}
    scores = {"nearest image": nearest(trained)}
    scores["PCD"] = timed("PCD", lambda: energy("digits_pcd.yaml", own, folder / "pcd", given.rounds, given.seed))
    made = timed("teacher", lambda: teacher(data, folder / "teacher", given.teacher_steps, given.seed))
    own |= {"sampler.teacher": str(made)}
    scores["DxMI"] = timed("DxMI", lambda: energy("digits_td.yaml", own, folder / "dxmi", given.rounds, given.seed))
    outliers = {f"digit {held_out}": digit, **corrupted(inliers, given.seed)}
    found = {kind: {name: auroc(score, inliers, x) for name, score in scores.items()} for kind, x in outliers.items()}
    sizes = {"trained_on": len(trained), "inliers": len(inliers), "digit": len(digit)}
    return {"held_out": held_out, "auroc": found, "cpu_seconds": seconds, "images": sizes}


def show(results: list[dict]) -> None:
    """The AUROC of every digit, kind of outlier and score as a Markdown table."""
    columns = list(next(iter(results[0]["auroc"].values())))
    print(f"| trained without | outliers | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for result in results:
        for kind, row in result["auroc"].items():
            print(f"| {result['held_out']} | {kind} | {' | '.join(f'{row[name]:.3f}' for name in columns)} |")


def positive(text: str) -> int:
    """A number of the command line, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=int, nargs="+", default=[1], choices=range(10), help="digits, each in turn")
    parser.add_argument("--rounds", type=positive, help="of both games, in place of those of the configs")
    parser.add_argument("--teacher-steps", type=positive, default=2000, help="of the training of DxMI's teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)  # CPU-seconds of two threads count twice

    source, results = DataConfig(**read_yaml(CONFIGS / "digits_td.yaml")["data"]), []
    facts = {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), "threads": 1}
    facts |= {"dxmi": version("dxmi"), "torch": torch.__version__, "anomaly": Anomaly().stamp(), "seed": given.seed}
    facts |= {"rounds": given.rounds or "the configs'", "teacher_steps": given.teacher_steps}
    facts["data"] = load_images(source).stamp()
    for digit in given.held_out:
        with tempfile.TemporaryDirectory() as folder:
            results.append(compare(source, digit, given, Path(folder)))
        if given.out:
            given.out.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    main()
