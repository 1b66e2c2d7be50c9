"""What the two anomaly examples share: cells on disk, ``dxmi pretrain`` and ``dxmi train`` on them, scores, tables."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from dxmi_plugins.evaluators.anomaly.evaluator import Anomaly

from dxmi.api import ConfigError, Energy, Labelled
from dxmi.api.errors import require
from dxmi.config import Checked, PretrainConfig, TrainConfig, read_yaml
from dxmi.evaluation import measure
from dxmi.pretraining import pretrain
from dxmi.runs import load_energy
from dxmi.training.train import train

CONFIGS = Path(__file__).parents[1] / "configs"


def options(description: str | None, name: str) -> argparse.ArgumentParser:
    """A command line with the options that both examples have; ``name`` is that of their configs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(name=name)
    parser.add_argument("--pretrain", type=int, help="steps of the autoencoder, in place of its config's")
    parser.add_argument("--steps", type=int, help="rounds of the game, in place of its config's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder for cells, runs and figures")
    parser.add_argument("--resume", action="store_true", help="go on with the game in --out")
    return parser


def compare(
    given: argparse.Namespace, good: torch.Tensor, test: Labelled, **settings: object
) -> dict[str, dict[str, float]]:
    """Figures of the autoencoder alone and of the same energy after EBM-VGS, of maps (N,h,w,D) of cells of norm 1."""
    alone, game = given.out / "autoencoder", given.out / "ebm_vgs"
    # What is wrong with either config is told before anything is written.
    first, second = (
        configured(given, PretrainConfig, "_autoencoder"),
        configured(given, TrainConfig, "", energy_weights=str(alone)),
    )
    for config in (first, second):
        require(0 <= given.seed < 2**32, "--seed", f"{given.seed} is not between 0 and 2^32 - 1")
        config.build()
    if not given.resume:
        taken = any(path.exists() for path in (alone / "config.json", game / "run.yaml"))
        require(
            not taken, "--out", f"{given.out} already holds a run", "give another folder, or --resume to go on with it"
        )
        write_cells(good.flatten(0, 2), given.out / "cells.parquet")
        pretrain(first, alone)
    train(second, game, resume=given.resume)
    energies = {"autoencoder": load_energy(alone), "EBM-VGS": load_energy(game / "energy")}
    return {name: figures(score(energy, test.items), test, **settings) for name, energy in energies.items()}


def configured(given: argparse.Namespace, kind: type, suffix: str, **more: str) -> Checked:
    """The config of the autoencoder or of the game, with the folder, seed and steps that are asked for."""
    config = read_yaml(CONFIGS / f"{given.name}{suffix}.yaml") | {"seed": given.seed} | more
    steps = given.pretrain if kind is PretrainConfig else given.steps
    config["data"]["path"] = str(given.out / "cells.parquet")
    return Checked(kind, config if steps is None else config | {"steps": steps})


@torch.no_grad()
def score(energy: Energy, maps: torch.Tensor) -> torch.Tensor:
    """Energies of the cells of feature maps: (N,h,w,D) -> (N,h,w), on the CPU."""
    energy.to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(energy.parameters()).device
    return torch.stack([energy(cells.flatten(0, 1).to(device)).cpu().view(cells.shape[:2]) for cells in maps])


def figures(scores: torch.Tensor, test: Labelled, **settings: object) -> dict[str, float]:
    """AUROC of score maps (N,h,w): of all classes' mean and of each class."""
    return measure([Anomaly(**settings)], test, lambda n: scores[:n])["metrics"]


def write_cells(cells: torch.Tensor, path: Path) -> None:
    """Cells (N,D) as a Parquet file with the column ``cell``."""
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"cell": list(cells.numpy())}).to_parquet(path)


def write_figures(rows: dict[str, dict[str, float]], out: Path) -> None:
    """Rows of figures as ``figures.json`` in a folder."""
    (out / "figures.json").write_text(json.dumps(rows, indent=2) + "\n")


def show(corner: str, rows: dict[str, dict[str, float]], columns: list[str]) -> None:
    """Rows of figures as a Markdown table."""
    print(f"| {corner} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{found[key]:.3f}' for key in columns)} |")


def in_one_line(main: Callable[[], None]) -> None:
    """Run ``main``; what goes wrong is told in one line, as the command line of dxmi tells it."""
    try:
        main()
    except (ConfigError, FloatingPointError, OSError) as error:
        print(f"error: {error}")
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
