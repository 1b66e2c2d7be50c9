"""The command line's commands: each parses, calls a function of ``dxmi`` and prints. Torch is imported by need."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from dxmi.api.errors import ConfigError
from dxmi.cli.config_options import configured, quiet
from dxmi.cli.evaluate import run_evaluate
from dxmi.cli.flags import spoken
from dxmi.cli.inspect import run_inspect
from dxmi.cli.parser import build_parser, without_pairs
from dxmi.cli.push import run_push
from dxmi.cli.sample import run_sample
from dxmi.cli.score import run_score
from dxmi.config.plugins import plugins


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv, pairs = without_pairs(sys.argv[1:] if argv is None else argv)
    command = next((argument for argument in argv if not argument.startswith("-")), "")
    try:
        return run(argv, pairs)
    except ConfigError as error:
        print(f"dxmi: {' '.join(str(spoken(error, command)).split())}", file=sys.stderr)
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
        on = "; 'dxmi train ... --resume' goes on from the last checkpoint" if command == "train" else ""
        print(f"dxmi: interrupted{on}", file=sys.stderr)
        return 1
    return 0


def run(argv: list[str], pairs: list[str]) -> int:
    """The command that ``argv`` names; ``pairs`` are its overrides of keys, ``--key.sub VALUE``."""
    first = argv[0] if argv else "--help"
    if not first.startswith("-") and first not in COMMANDS:
        near = get_close_matches(first, COMMANDS, n=1) or list(COMMANDS)
        raise ConfigError(first, "there is no such command", f"nearest: {', '.join(near)}")
    if first.startswith("-") and first not in ("-h", "--help", "--version"):
        raise ConfigError(first, "dxmi has no such option", "give a command first; see 'dxmi --help'")
    options, overrides = build_parser().parse_known_args(argv or ["--help"])
    if options.version:
        from dxmi import __version__

        print(__version__)
        return 0
    overrides = [*overrides, *pairs]
    if overrides and not getattr(options, "takes_overrides", False):
        cure = f"see 'dxmi {options.command} --help'"
        raise ConfigError(overrides[0], f"'{options.command}' has no such option", cure)
    COMMANDS[options.command](options, overrides)
    return 0


def run_train(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi train``."""
    from dxmi.config import TrainConfig

    config = configured(TrainConfig, options, overrides)
    if config is not None:
        quiet()
        from dxmi import train

        say(train(config, options.out or Path("runs") / Path(options.config).stem, resume=options.resume).folder)


def run_pretrain(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi pretrain``."""
    from dxmi.config import PretrainConfig

    config = configured(PretrainConfig, options, overrides)
    if config is not None:
        quiet()
        from dxmi import pretrain

        say(pretrain(config, options.out or Path("runs") / Path(options.config).stem))


def run_export(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi export``."""
    quiet()
    from dxmi import export

    say(export(options.run, options.out, mode=options.mode))


def say(folder: Path) -> None:
    """What lies in a folder that was written."""
    from dxmi.screen import is_main_process

    if is_main_process():
        print(f"{folder}: {', '.join(sorted(path.name + '/' * path.is_dir() for path in folder.iterdir()))}")


def run_plugins(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi plugins``."""
    known = plugins(check=options.check)
    if options.json:
        rows = [
            {"group": p.group, "name": p.name, "value": p.value, "distributions": p.distributions, "problem": p.problem}
            for p in known
        ]
        print(json.dumps(rows, indent=2))
        return
    for plugin in known:
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
