"""What a run leaves for others: the energy folder, pictures and the table. No pickled code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich import box
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from dxmi import plugins
from dxmi.api import ConfigError, Energy
from dxmi.config import build_plugin
from dxmi.data import Data, load_data
from dxmi.errors import first_line, require
from dxmi.items import Items
from dxmi.usage import usage_of_pipeline


def save_energy(
    energy: Energy, config: dict[str, Any], steps: int, folder: Path, shape: tuple[int, ...] | None = None
) -> None:
    """``config.json`` (the plugin and its options, as in YAML, T and S) and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"plugin": config, "steps": steps, "shape": shape}, indent=2) + "\n")
    save_file({k: v.contiguous().cpu() for k, v in energy.state_dict().items()}, folder / "model.safetensors")


def load_energy(folder: str | Path) -> Energy:
    """The energy (or value) in a folder that ``save_energy`` wrote: ``energy(x (B,*S)) -> (B,)``.

    Raises:
        ConfigError: it is no such folder, or its plugin is not installed
    """
    return load_energy_and_steps(folder)[0]


def load_energy_and_steps(folder: str | Path) -> tuple[Energy, int]:
    """The same and T, the time at which a network with ``time: true`` is the energy.

    Raises:
        ConfigError: it is no such folder, or its plugin is not installed
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        energy = build_plugin(Energy, config["plugin"])  # type: ignore[type-abstract]
        energy.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{folder}: is no energy folder with config.json and model.safetensors") from error
    return energy.eval(), config["steps"]


def save_grid(images: Tensor, path: Path, columns: int = 8, least: int = 64) -> None:
    """(N,C,H,W) in [-1, 1] -> one PNG, small images enlarged to at least ``least`` pixels."""
    from torchvision.utils import make_grid, save_image

    enlarge = max(1, least // images.shape[-1])
    large = images.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(make_grid((large + 1) / 2, nrow=columns, pad_value=0.5), path)


def save_before_after(before: Tensor, after: Tensor, titles: tuple[str, str], path: Path) -> None:
    """Two rows-of-images panels, the first above the second: (N,C,H,W) in [-1, 1] each -> one PNG."""
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    figure = Figure(figsize=(8, 3.1), layout="constrained")
    for axes, images, title in zip(figure.subplots(2, 1), (before, after), titles, strict=True):
        grid = make_grid((images.clamp(-1, 1) + 1) / 2, nrow=len(images) // 2, padding=1, pad_value=0.5)
        axes.imshow(grid.permute(1, 2, 0), interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    figure.savefig(path, dpi=120)


def metric_label(name: str, samples: int) -> str:
    """A Fréchet distance over fewer than 50,000 samples says so in its name: ``fid_10k``."""
    name = name.removesuffix("_mean")
    if samples >= 50_000 or not name.startswith(("fid", "fd_")):
        return name
    return f"{name}_{samples / 1000:.3g}k"


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows of ``evaluation.json`` as text, the heading first; spreads and the f-score are left to the JSON."""
    metrics = list(dict.fromkeys(m for row in rows for m in row["metrics"]))
    metrics = [m for m in metrics if not m.endswith("_std") and m != "f_score"]
    out = [["", "steps", *(metric_label(m, rows[0]["samples"]) for m in metrics)]]
    for row in rows:
        figures = [f"{row['metrics'][m]:.3g}" if m in row["metrics"] else "" for m in metrics]
        name = row["name"] if row["samples"] == rows[0]["samples"] else f"{row['name']} (n={row['samples']})"
        out.append([name, str(row["steps"] or ""), *figures])
    return out


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows of ``evaluation.json`` for the screen."""
    heading, *body = cells(rows)
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    for column in heading:
        out.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in body:
        out.add_row(*row)
    if any(name.startswith(("fd_", "fid")) for name in heading):
        out.caption = "fd, fid, kd, kid: lower is better; is, precision, recall: higher"
    return out


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """The same as lines of a Markdown table."""
    heading, *body = (f"| {' | '.join(row)} |" for row in cells(rows))
    return [heading, "|" + "---|" * len(cells(rows)[0]), *body]


def is_own_code(folder: Path) -> bool:
    """Whether a pipeline's folder brings code, and all of it is a copy of an installed module of ``dxmi.diffusers``."""
    own = [plugins.find_file(plugin.claims[0].module) for plugin in plugins.installed("dxmi.diffusers").values()]
    sources = {Path(spec.origin).read_bytes() for spec in own if spec is not None and spec.origin is not None}
    brought = {file.read_bytes() for file in folder.rglob("*.py")}
    return bool(brought) and brought <= sources


def sample_pipeline(source: str, n: int, steps: int | None, seed: int, prompts: Sequence[str] = ()) -> Tensor:
    """N images (n,C,H,W) in [-1, 1] from a run's pipeline, a pipeline folder or a hub id.

    They are of the prompts in turn, or of classes at random, for pipelines that draw these.

    Raises:
        ConfigError: there is no such pipeline, it cannot make that many steps, or it needs prompts or knows none
    """
    from diffusers import DiffusionPipeline

    folder = Path(source) / "pipeline" if (Path(source) / "run.yaml").exists() else Path(source)
    if folder.exists() and not (folder / "model_index.json").exists():
        raise ConfigError(
            f"{source}: its sampler is no diffusers pipeline (there is no {folder.name}/model_index.json)"
        )
    for scheduler in (*plugins.installed("dxmi.schedulers").values(), *plugins.installed("dxmi.diffusers").values()):
        if scheduler.problem is None:
            scheduler.load()  # diffusers loads no class that was not imported
    try:
        place = str(folder) if folder.exists() else source
        pipeline = DiffusionPipeline.from_pretrained(place, trust_remote_code=is_own_code(folder))
    except (OSError, ValueError, KeyError) as error:
        why = (
            first_line(error)
            if folder.exists()
            else "there is no such folder, and the hub has it not or is out of reach"
        )
        raise ConfigError(f"{source}: no pipeline can be loaded from it: {why}") from error
    used, student = usage_of_pipeline(pipeline), pipeline.scheduler.config.get("table")
    require(bool(prompts) or not used.captions, f"--prompt: {source} draws from text; give one")
    require(not prompts or used.captions, f"--prompt: {source} does not draw from text; leave it out")
    generator = Generator().manual_seed(seed)
    labels = torch.randint(used.classes or 1, (n,), generator=generator).tolist()
    options = used.options(n, labels, prompts) | ({} if student is None else used.once)
    steps = steps or (None if student is None else len(student))
    options |= {} if steps is None else {"num_inference_steps": steps}
    torch.manual_seed(seed)  # some pipelines hand no generator to their scheduler
    try:
        pipeline.to(Accelerator().device)
        images = pipeline(generator=generator, output_type="np", **options).images
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--steps: {error}") from error
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


def score(source: str, data: Data) -> list[float]:
    """The energy of every image or vector, in the dataset's order: low means like the data it learned.

    Raises:
        ConfigError: there is no such energy or data, or the items do not fit the energy
    """
    folder = Path(source) / "energy" if (Path(source) / "run.yaml").exists() else Path(source)
    (energy, steps), items = load_energy_and_steps(folder), load_data(data)
    assert isinstance(items, Items)
    device = Accelerator().device
    energy.to(device)
    try:
        with torch.no_grad():
            parts = (items[part].to(device) for part in torch.split(torch.arange(len(items)), 256))
            return [e for x in parts for e in energy(x, torch.full((len(x),), steps, device=device)).tolist()]
    except (RuntimeError, AssertionError) as error:  # lazy layers assert
        raise ConfigError(f"{data.path}: items {items.event_shape} do not fit the energy in {folder}") from error
