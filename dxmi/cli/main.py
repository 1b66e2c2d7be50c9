"""The command line's commands. Torch is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dxmi.api import ConfigError
from dxmi.cli.config_options import configured, quiet
from dxmi.cli.evaluate import run_evaluate
from dxmi.cli.parser import build_parser, without_pairs
from dxmi.cli.sample import run_sample
from dxmi.config import plugins


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    argv, pairs = without_pairs(sys.argv[1:] if argv is None else argv)
    options, overrides = parser.parse_known_args(argv)
    overrides = [*overrides, *pairs]
    try:
        if overrides and not getattr(options, "takes_overrides", False):
            raise ConfigError(
                f"{overrides[0]}", f"'{options.command}' has no such option", f"see 'dxmi {options.command} --help'"
            )
        COMMANDS[options.command](options, overrides)
    except ConfigError as error:
        print(f"dxmi: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (FloatingPointError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("DXMI_DEBUG"):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"dxmi: failed: {reason} (DXMI_DEBUG=1 shows where)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        on = "; 'dxmi train ... --resume' goes on from the last checkpoint" if options.command == "train" else ""
        print(f"dxmi: interrupted{on}", file=sys.stderr)
        return 1
    return 0


def run_train(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi train``."""
    from dxmi.config.run import TrainConfig

    config = configured(TrainConfig, options, overrides)
    if config is not None:
        quiet()
        from dxmi.training.train import train

        out = train(config, options.out or Path("runs") / Path(options.config).stem, options.resume)
        if os.environ.get("RANK", "0") == "0":
            print(f"{out}: {contents(out)}")


def run_pretrain(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi pretrain``."""
    from dxmi.config.pretrain import PretrainConfig
    from dxmi.pretraining.loop import pretrain

    config = configured(PretrainConfig, options, overrides)
    if config is not None:
        quiet()
        out = pretrain(config, options.out or Path("runs") / Path(options.config).stem)
        if os.environ.get("RANK", "0") == "0":
            print(f"{out}: {contents(out)}")


def contents(folder: Path) -> str:
    """What lies in a folder, for the screen."""
    return ", ".join(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()))


def run_score(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi score``."""
    if options.classes and not options.labels:
        raise ConfigError("--classes", "AUROC needs labels", "give --labels too")
    if options.json and not options.json.parent.is_dir():
        raise ConfigError("--json", f"there is no folder {options.json.parent}")
    quiet()
    from dxmi.config.data import DataConfig
    from dxmi.evaluation.energy_scores import score, score_labelled
    from dxmi.evaluation.tables import show_scores

    data = DataConfig(path=options.images, column=options.column)
    try:
        found = score_labelled(options.source, data, options.labels, options.classes) if options.labels else None
        energies = score(options.source, data) if found is None else found["energies"]
    except ConfigError as error:  # keys of a config are options here
        raise ConfigError(str(error).replace("data.column:", "--column:").replace("data.path: ", "")) from error
    if options.json:
        options.json.write_text(json.dumps(found or energies) + "\n")
        print(options.json)
    else:
        print("\n".join(f"{energy:.6g}" for energy in energies))
    if found:
        show_scores(found["metrics"])


def run_inspect(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi inspect``."""
    quiet()
    from dxmi.runs.inspect import inspect

    inspect(options.pipeline, options.trust_remote_code, options.json, options.config)


def run_export(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi export``."""
    quiet()
    from dxmi.training.export import export

    export(Path(options.run), options.mode, options.out)
    print(f"{options.out}: {contents(options.out)}")


def run_push(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi push``."""
    from dxmi.runs.push import push

    push(Path(options.source), options.repo, options.private, options.yes)


def run_plugins(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi plugins``."""
    found = [p for group in plugins.GROUPS for p in plugins.installed(group, imported=options.check).values()]
    if options.json:
        rows = [
            {"group": p.group, "name": p.name, "value": p.value, "distributions": p.distributions, "problem": p.problem}
            for p in found
        ]
        print(json.dumps(rows, indent=2))
        return
    for plugin in found:
        problem = f"  BROKEN: {plugin.problem}" if plugin.problem else ""
        owner = ", ".join(plugin.distributions)
        print(f"{plugin.group.removeprefix('dxmi.'):<11} {plugin.name:<20} {plugin.value}  ({owner}){problem}")


COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], None]] = {
    "train": run_train,
    "pretrain": run_pretrain,
    "sample": run_sample,
    "evaluate": run_evaluate,
    "score": run_score,
    "inspect": run_inspect,
    "export": run_export,
    "push": run_push,
    "plugins": run_plugins,
}
