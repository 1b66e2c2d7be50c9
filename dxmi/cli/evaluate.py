"""``dxmi evaluate``: which of its kinds is meant, and what is printed. Torch is imported when it is needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.cli.config_options import quiet
from dxmi.config import plugins

IMAGES = (
    *("reference", "floor", "extractor", "seeds", "batch_size", "schedulers", "steps", "prompts", "column", "label"),
    *("evaluator", "steps_like"),
)
"""parameters of pipelines, runs and stored images alone"""
OTHERS = ("pipeline", "metrics", "n", "seed", "out")
MAPPINGS = ("evaluator", "reference", "source", "floor")  # options that have options: --evaluator.bootstrap 100
DESTINATIONS = {"pipeline": "source", "schedulers": "scheduler", "prompts": "prompt"}
"""what the parser calls a parameter that it has no name of its own for"""


def run_evaluate(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi evaluate``."""
    if options.help:
        from dxmi.config.help_text import options_help

        name = options.evaluator or "fidelity"
        print(options.own_help())
        print(options_help(plugins.load("dxmi.evaluators", name), "evaluator", f"--evaluator {name}", {}))
        return
    for flag in overrides[:1]:
        known = flag.startswith(tuple(f"--{key}." for key in MAPPINGS))
        require(known, flag, "'evaluate' has no such option", "see 'dxmi evaluate --help'")
    if options.compare:
        refuse(options, overrides, (*IMAGES, *OTHERS), "--compare takes two reports and nothing else")
        compare(*options.compare)
        return
    require(options.source is not None, "evaluate", "give a pipeline, a run, a folder of images or a dataset")
    require(options.n is None or options.n >= 2, "n", "give at least 2")
    if has_no_images(options.source):
        refuse(options, overrides, IMAGES, f"{options.source} is a run on a known density")
        run_density(options)
        return
    run_images(options, overrides)


def refuse(options: argparse.Namespace, overrides: list[str], keys: Sequence[str], why: str) -> None:
    """Raise ConfigError if one of these parameters was given, or an option of one."""
    for key in keys:
        require(getattr(options, DESTINATIONS.get(key, key)) is None, key, why, "leave it out")
    require(not overrides, "".join(overrides[:1]), why, "leave it out")


def has_no_images(source: str) -> bool:
    """Whether it is a run that has no images: on a known density, on vectors, or of chains.

    Raises:
        ConfigError: it is a run on data that is not finished
    """
    from dxmi.runs.folder import Run

    run = Run.find(source)
    if run is None:
        return False
    if run.kind == "unfinished" and run.config.get("data") is not None:
        run.require_finished()
    return not run.has_images


def run_density(options: argparse.Namespace) -> None:
    """``dxmi evaluate RUN`` of a run on a known density."""
    if options.seed is not None and not 0 <= options.seed < 2**32:
        raise ConfigError("seed", f"{options.seed} is not between 0 and 2^32 - 1")
    if options.out is not None and not options.out.parent.is_dir():
        raise ConfigError("out", f"there is no folder {options.out.parent}")
    if options.out is not None and options.out.is_dir():
        raise ConfigError("out", f"{options.out} is a folder", "give a JSON file")
    quiet()
    from dxmi import evaluate
    from dxmi.evaluation import noted, show_density
    from dxmi.screen import Screen

    seeds = [] if options.seed is None else [options.seed]
    with noted(Screen().tell):
        report = evaluate(options.source, metrics=names("metrics", options.metrics), n=options.n, seeds=seeds)
    show_density(report.rows)
    out = options.out or Path(options.source) / f"evaluation-{report.stamp['seed']}.json"
    out.write_text(report.to_json() + "\n")
    print(out)


def run_images(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi evaluate`` of a pipeline or of images."""
    require(options.reference is not None, "reference", "give what to measure against: a dataset, a folder or an .npz")
    require(options.seed is None, "seed", "samples of images have several", "give --seeds")
    given: dict[str, Any] = {
        **mappings(options, overrides),
        "metrics": names("metrics", options.metrics),
        "extractor": options.extractor,
        "n": options.n,
        "seeds": numbers("seeds", options.seeds),
        "batch_size": options.batch_size,
        "schedulers": names("schedulers", options.scheduler),
        "steps": numbers("steps", options.steps),
        "prompts": options.prompt,
        "column": options.column,
        "label": options.label,
        "steps_like": options.steps_like,
        "out": options.out,
    }
    quiet()
    from dxmi import evaluate
    from dxmi.screen import is_main_process

    chosen = {key: value for key, value in given.items() if value is not None}
    floor = chosen.get("floor")
    if isinstance(floor, dict):
        option = next(key for key in floor if key != "path")
        require(
            floor["path"] not in (None, "none", "halves"), f"floor.{option}", "it is for a dataset, as --floor FILE"
        )
    if floor == "none":
        chosen["floor"] = None
    report = evaluate(chosen.pop("source"), chosen.pop("reference"), **chosen)
    if is_main_process():
        report.show()
        if options.out is not None:
            print(options.out)


def mappings(options: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """What was given for ``MAPPINGS``: a name or path, as a mapping where options of its own follow."""
    from dxmi.config.yaml_files import overlay

    plain = {"evaluator": {"name": options.evaluator or "fidelity"}} | {
        key: {"path": getattr(options, key)} for key in MAPPINGS if key != "evaluator"
    }
    config = {key: dict(value) for key, value in plain.items()}
    overlay(config, overrides)
    for key in config:
        require(key in plain, f"--{key}", "'evaluate' has no such option", "see 'dxmi evaluate --help'")
    return {key: config[key] if config[key] != plain[key] else next(iter(plain[key].values())) for key in plain}


def compare(first: Path, second: Path) -> None:
    """``dxmi evaluate --compare``: both reports in one table, if they were made alike."""
    from dxmi.evaluation import compared

    compared(first, second).show()


def names(key: str, given: str | None) -> list[str] | None:
    """``a,b`` as a list. Raises ConfigError if there is nothing in it."""
    found = None if given is None else [name.strip() for name in given.split(",") if name.strip()]
    require(found != [], key, "the list is empty", "leave the option out for its default")
    return found


def numbers(key: str, given: str | None) -> list[int] | None:
    """``1,2`` as a list. Raises ConfigError if one is no whole number."""
    found = names(key, given)
    if found is None:
        return None
    require(all(name.removeprefix("-").isdecimal() for name in found), key, f"{given} are not whole numbers, as 1,2")
    return [int(name) for name in found]
