"""What the two anomaly examples share: the autoencoder alone, EBM-VGS, scores, tables."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from dxmi_plugins.energies.sphere_autoencoder import SphereAutoencoder
from dxmi_plugins.evaluators.anomaly import Anomaly, Labelled
from rich.progress import track

from dxmi.algorithm import DxMI
from dxmi.api import ConfigError, Energy
from dxmi.artefacts import save_energy
from dxmi.config import Checked, Run
from dxmi.dialect import read
from dxmi.errors import require
from dxmi.evaluate import measure

CONFIGS = Path(__file__).parents[1] / "configs"


def options(description: str | None, config: str, pretrain: int) -> argparse.ArgumentParser:
    """A command line with the options that both examples have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIGS / config, help="players and settings of the game")
    parser.add_argument("--pretrain", type=int, default=pretrain, help="steps of the autoencoder before the game")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate of those steps, lowered to 0")
    parser.add_argument("--steps", type=int, help="rounds of the game, in place of the config's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=Path, help="also write the training cells there, as Parquet for dxmi train")
    parser.add_argument("--out", type=Path, help="folder to keep both energies and the figures in")
    return parser


def compare(
    given: argparse.Namespace, train: torch.Tensor, test: Labelled, **settings: object
) -> dict[str, dict[str, float]]:
    """Figures of the autoencoder alone and of the same energy after EBM-VGS, of maps (N,h,w,D) of cells of norm 1."""
    require(given.pretrain >= 1, f"--pretrain: {given.pretrain} steps train nothing; give 1 or more")
    require(0 < given.rate < math.inf, f"--rate: {given.rate} is no learning rate; give a positive number")
    require(0 <= given.seed < 2**32, f"--seed: {given.seed} is not between 0 and 2^32 - 1")
    (run, resolved), cells, found = build(given.config, given.seed, given.steps), train.flatten(0, 2), {}
    if given.cells:
        write_cells(cells, given.cells)
    learn: dict[str, Callable[[], None]] = {
        "autoencoder": lambda: pretrain(run, cells, given.pretrain, given.rate),
        "EBM-VGS": lambda: play(run, cells),
    }
    for name, train_it in learn.items():
        train_it()
        found[name] = figures(score(run.energy, test.items), test, **settings)
        if given.out:
            save_energy(run.energy, resolved["energy"], run.sampler.steps, given.out / name)
    if given.out:
        (given.out / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
    return found


def build(config: Path, seed: int, steps: int | None = None) -> tuple[Run, dict[str, Any]]:
    """The players of a config, and the config with every default."""
    given = {**read(config), "seed": seed}
    checked = Checked(Run, given if steps is None else {**given, "steps": steps})
    set_seed(seed)
    run, kind = checked.build(), checked.resolved["energy"]["name"]
    require(isinstance(run.energy, SphereAutoencoder), f"energy: {kind} is no sphere_autoencoder; name one")
    return run, checked.resolved


def pretrain(run: Run, cells: torch.Tensor, steps: int, rate: float) -> None:
    """The autoencoder alone, on cells (N,D)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run.energy.to(device)(cells[:1].to(device))  # it reads its sizes
    optimizer = torch.optim.Adam(run.energy.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in track(range(steps), "autoencoder"):
        loss = run.energy.reconstruction_loss(some(cells, run.data.batch_size).to(device))
        if not loss.isfinite():
            raise FloatingPointError(f"the autoencoder's loss is not finite in step {step}; lower --rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def play(run: Run, cells: torch.Tensor) -> None:
    """EBM-VGS: the game between the energy and a value-guided sampler whose chains start from perturbed cells (N,D)."""
    device = next(run.energy.parameters()).device
    run.value.to(device)(cells[:1].to(device), torch.zeros(1, dtype=torch.long, device=device))
    game, size = DxMI(run.energy, run.sampler, run.value, run.game, run, total=run.steps), run.data.batch_size
    for _ in track(range(run.steps), "EBM-VGS"):
        game.round(some(cells, size).to(game.accelerator.device), (size, cells.shape[1]))


def some(cells: torch.Tensor, number: int) -> torch.Tensor:
    """That many cells, at random."""
    return cells[torch.randint(len(cells), (number,))]


@torch.no_grad()
def score(energy: Energy, maps: torch.Tensor) -> torch.Tensor:
    """Energies of the cells of feature maps: (N,h,w,D) -> (N,h,w), on the CPU."""
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
