"""A finished run's pipeline for others: as it is, or of classes that diffusers ships (``dxmi export``)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError

from dxmi.api import ConfigError, FromPipeline, Sampler
from dxmi.api.errors import first_line, require
from dxmi.api.files import whole_folder
from dxmi.chains import SamplerDraw
from dxmi.config import TrainConfig
from dxmi.data import Items, Stream, load_data
from dxmi.evaluation import card_figures, compare, draw_candidate, show
from dxmi.runs.folder import GO_ON, Run
from dxmi.runs.model_card import model_card
from dxmi.screen import Screen


def export(run: str | Path | Run, out: str | Path, *, mode: Literal["exact", "stock"] = "exact") -> Path:
    """Write the pipeline of ``run`` into ``out``; of a stock one the loss in quality is printed and in its card.

    Args:
        run: a finished run, or its folder
        out: a folder that is not there yet
        mode: exact copies the pipeline with its scheduler's source; stock needs no code but diffusers'

    Raises:
        ConfigError: the run is not finished or left no pipeline, ``out`` exists, or stock classes cannot say it
    """
    out, source = Path(out), Run(run)
    require(mode in ("exact", "stock"), "mode", f"'{mode}' is neither exact nor stock", "give one of them")
    require(not out.exists(), "out", f"{out} exists", "give another folder")
    whole = all((source.pipeline_folder / name).is_file() for name in ("README.md", "model_index.json"))
    require(whole, source.folder, "holds no finished run with a pipeline", GO_ON)
    with whole_folder(out) as draft:
        if mode == "exact":
            shutil.copytree(source.pipeline_folder, draft)
        else:
            save_stock(source, draft)
    return out


def save_stock(source: Run, out: Path) -> None:
    """The same network under a scheduler of diffusers' own, and its card with both rows of figures."""
    config = source.checked()
    set_seed(config.values.seed)
    run = config.build()
    try:
        run.sampler.load_pretrained(source.pipeline_folder)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ConfigError(source.folder, f"its pipeline cannot be read: {first_line(error)}") from error
    if not isinstance(run.sampler, FromPipeline):
        kind = type(run.sampler).__name__
        raise ConfigError("sampler", f"{kind} is no diffusers pipeline", "there is nothing to export")
    try:
        stock = run.sampler.stock()
    except ConfigError as error:
        raise error.under("sampler") from error
    evaluation = figures(run, {"exact": run.sampler, "stock": stock}, source.prompts)
    stock.save_pretrained(out)
    if (source.pipeline_folder / "lora").is_dir():
        shutil.copytree(source.pipeline_folder / "lora", out / "lora")
    model_card(out, config.resolved, stock.steps, card_figures(evaluation), stock.call_options)
    if evaluation is None:
        Screen().tell("the run has no evaluators, so the loss in quality was not measured")
    else:
        show(evaluation["rows"])


def figures(run: TrainConfig, samplers: dict[str, Sampler], prompts: list[str]) -> dict[str, Any] | None:
    """A row of figures for each sampler, from the same seeds; None without evaluators or stored data."""
    if not run.evaluators or run.data is None:
        return None
    data, accelerator = load_data(run.data), Accelerator()
    if not isinstance(data, Items | Stream):
        return None
    made, rows = {"prompts": prompts}, []
    for name, sampler in samplers.items():
        draw, steps = SamplerDraw(sampler.to(accelerator.device).eval(), data.event_shape), sampler.steps
        rows.append(draw_candidate(draw, name, steps, steps, accelerator, made=made, batch_size=run.draw_batch))
    reference = data.reference()
    return compare(rows, run.evaluators, reference, reference.stamp(), run.seed, Screen().tell)
