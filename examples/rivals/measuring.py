"""The command line of all rivals, and how what they leave is measured: alike, from the pipelines that they saved."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from common import Match, Task

from dxmi.api import ConfigError, Draw, Evaluator
from dxmi.api.errors import require
from dxmi.chains import first_samples, save_grid
from dxmi.config import DataConfig, build_plugin
from dxmi.data import load_data
from dxmi.evaluation import draw_candidate, measure, noted, stamp
from dxmi.pipelines import PipelineDraw, load_pipeline

METRICS = ["fid", "shares", "prc", "nearest"]
SHOWN = 16  # samples in a picture
LEAST = 10  # samples
S = TypeVar("S")


def parser(description: str | None, leave_out: Sequence[str] = ()) -> argparse.ArgumentParser:
    """A command line with the options of a task, but for some."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Task):
        if field.name not in leave_out:
            made.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    made.add_argument("--out", type=Path, required=True, help="folder for the pipeline, figures and a picture")
    return made


def task_of(given: argparse.Namespace) -> Task:
    """The task that a command line asks for."""
    return Task(**{field.name: vars(given)[field.name] for field in fields(Task) if field.name in given})


def play(description: str | None, train: Callable[[Task, S], Match], settings: S) -> None:
    """A rival's command: train within the time, save the averaged student, measure it.

    Args:
        description: of the command
        train: what the rival does until the time is up
        settings: its defaults; ``--set key=value`` changes some
    """
    options = parser(description)
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help=f"of {asdict(settings)}")
    given = options.parse_args()
    with in_one_line():
        task, chosen = task_of(given), changed(settings, given.set)
        torch.set_num_threads(1)  # CPU-seconds of two threads count twice
        judge = judge_of(task)
        match = train(task, chosen)
        seconds = match.share * task.seconds
        folder = given.out / "pipeline"
        match.average.module.save_pretrained(folder)
        facts = {"seconds": round(seconds, 1), "rounds": match.done, "settings": asdict(chosen)}
        write(given.out, task, facts, pipeline_draw(folder), judge)


def changed(settings: S, pairs: list[str]) -> S:
    """The settings with ``key=value`` pairs laid over them. Raises ConfigError: a key or value is none of theirs."""
    known, found = asdict(settings), dict[str, Any]()
    for pair in pairs:
        key, _, value = pair.partition("=")
        require(key in known, f"--set {pair}", f"there is no setting '{key}'", f"there are {', '.join(known)}")
        try:
            found[key] = type(known[key])(value)
        except ValueError as error:
            raise ConfigError(f"--set {pair}", f"{value} is no {type(known[key]).__name__}") from error
    return replace(settings, **found)


def pipeline_draw(folder: Path) -> Draw:
    """What draws from a pipeline's folder."""
    return PipelineDraw(load_pipeline(str(folder)), torch.device("cpu"))


def judge_of(task: Task) -> Any:
    """What measures samples. Raises ConfigError: there is no such extractor, or too few samples are asked for."""
    few = f"{task.samples} are too few for shares of classes and neighbours"
    require(task.samples >= LEAST, "samples", few, f"give {LEAST} or more")
    options = {"name": "fidelity", "extractor": task.extractor, "samples": task.samples, "metrics": METRICS}
    return build_plugin(Evaluator, options)


def write(out: Path, task: Task, facts: dict[str, Any], draw: Draw, judge: Any) -> None:
    """Measure ``task.samples`` of a draw; leave ``result.json``, with the facts, and ``samples.png`` in a folder."""
    steps, seed, start = task.steps, task.seed, time.process_time()
    data = load_data(DataConfig(path=task.data))
    row = draw_candidate(draw, "student", steps, steps, Accelerator(cpu=True))
    with noted(print):
        figures = measure([judge], data.reference(), row.samples(seed))
    made_with = stamp([row], [judge], data.stamp(), seed, figures["samples"])
    result = {"steps": steps, "seed": seed, **facts, **figures, "measuring_seconds": round(time.process_time() - start)}
    result |= {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    out.mkdir(parents=True, exist_ok=True)
    save_grid(first_samples([draw], SHOWN, steps, seed, SHOWN)[0], out / "samples.png", SHOWN, least=32)
    (out / "result.json").write_text(json.dumps(result | {"stamp": made_with}, indent=1) + "\n")
    shown = {key: round(value, 4) for key, value in figures["metrics"].items() if "floor" not in key}
    print(json.dumps({"steps": steps, **facts, **shown}), flush=True)


@contextmanager
def in_one_line() -> Iterator[None]:
    """What goes wrong inside is told in one line, as the command line of dxmi tells it."""
    try:
        yield
    except (ConfigError, FloatingPointError, OSError) as error:
        print(f"error: {error}")
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
