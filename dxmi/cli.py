"""The command line: parsing and printing only. Torch is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dxmi import plugins
from dxmi.errors import ConfigError

EPILOG = """Every key of a config can be overridden: --steps 100, --sampler.scheduler.steps 2, --energy mlp.
'dxmi train CONFIG --help' explains every key, with the options of the plugins that CONFIG names.
Exit status: 0 done, 2 what you gave is wrong (one line says what), 1 it failed while running."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    options, overrides = parser.parse_known_args(argv)
    try:
        if overrides and not getattr(options, "takes_overrides", False):
            raise ConfigError(
                f"{overrides[0]}: '{options.command}' has no such option; see 'dxmi {options.command} --help'"
            )
        command: Callable[..., None] = options.run
        command(options, overrides)
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
        print("dxmi: interrupted; 'dxmi train ... --resume' goes on from the last checkpoint", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = argparse.ArgumentParser(
        prog="dxmi", description="Fine-tune diffusers pipelines to a few steps.", epilog=EPILOG
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[..., None], about: str, **defaults: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=about, description=about, add_help="configured" not in defaults, allow_abbrev=False
        )
        command.set_defaults(run=run, **defaults)
        return command

    for name, run, about in (
        ("train", run_train, "play the game a config describes and leave a pipeline, an energy and an evaluation"),
        ("pretrain", run_pretrain, "train a teacher from scratch and save it as a DDPMPipeline"),
    ):
        command = add(name, run, about, takes_overrides=True, configured=True)
        command.add_argument("config", nargs="?", help="YAML file")
        command.add_argument("--out", type=Path, help="folder to write (default: runs/<name of the config>)")
        command.add_argument("--print_config", action="store_true", help="print the config with every default and stop")
        command.add_argument("-h", "--help", action="store_true", help="show every key and stop")
        if name == "train":
            command.add_argument("--resume", action="store_true", help="go on with the run in --out")
        command.set_defaults(own_help=command.format_help)
    sample = add(
        "sample",
        run_sample,
        "draw images from a run or any diffusers pipeline, or run chains on a known density",
        takes_overrides=True,
    )
    sample.add_argument("source", help="run folder, pipeline folder or hub id; or a YAML file with energy and sampler")
    sample.add_argument("-n", type=int, help="number of images (default 64) or chains (default: the file's)")
    sample.add_argument("--seed", type=int)
    sample.add_argument("--steps", type=int, help="number of steps (default: the pipeline's own)")
    sample.add_argument("--out", type=Path, help="PNG to write (default grid.png); folder, for a YAML file")
    score = add("score", run_score, "energies of images under a run's energy: low means like the data")
    score.add_argument("source", help="run folder or energy folder")
    score.add_argument("images", help="Parquet file, folder of images or hub id")
    score.add_argument("--column", default="image", help="image column (default image)")
    score.add_argument("--json", type=Path, help="file to write the list of energies to (default: print it)")
    listing = add("plugins", run_plugins, "list installed plugins and what is wrong with them")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument("--check", action="store_true", help="import every plugin, to find all that fail")
    return parser


def run_train(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi train``."""
    from dxmi.config import Run

    config = configured(Run, options, overrides)
    if config is not None:
        quiet()
        from dxmi.train import train

        out = train(config, options.out or Path("runs") / Path(options.config).stem, options.resume)
        if os.environ.get("RANK", "0") == "0":
            print(f"{out}: {', '.join(sorted(p.name + '/' * p.is_dir() for p in out.iterdir()))}")


def run_pretrain(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi pretrain``."""
    from dxmi.pretrain import Pretrain, pretrain

    config = configured(Pretrain, options, overrides)
    if config is not None:
        quiet()
        out = pretrain(config.build(), options.out or Path("runs") / Path(options.config).stem)
        print(f"{out}: a DDPMPipeline")


def configured(kind: Any, options: argparse.Namespace, overrides: list[str]) -> Any:
    """The checked config, or None if help or the resolved config was printed instead."""
    import yaml

    from dxmi.config import Checked, help_text
    from dxmi.dialect import read

    if options.config and overrides and not Path(options.config).is_file():
        raise ConfigError(f"{options.config}: no such file; give the config first, then --key VALUE")
    if options.help:
        print(options.own_help())
        print(help_text(kind, read(options.config, overrides) if options.config else {}, options.command))
        return None
    if options.config is None:
        raise ConfigError(f"{options.command}: give a config file, such as configs/digits.yaml")
    config = Checked(kind, read(options.config, overrides))
    if options.print_config:
        print(yaml.safe_dump(config.resolved, sort_keys=False), end="")
        return None
    return config


def run_sample(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample``."""
    if options.n is not None and options.n < 1:
        raise ConfigError("-n: give at least 1")
    if Path(options.source).suffix in (".yaml", ".yml"):
        run_density(options, overrides)
        return
    if overrides:
        raise ConfigError(f"{overrides[0]}: no such option for a pipeline; see 'dxmi sample --help'")
    quiet()
    from dxmi.artefacts import sample_pipeline, save_grid

    out = options.out or Path("grid.png")
    save_grid(sample_pipeline(options.source, options.n or 64, options.steps, options.seed or 0), out)
    print(out)


def run_density(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample CONFIG``."""
    from dxmi.chains import Chains
    from dxmi.config import Checked
    from dxmi.dialect import read
    from dxmi.sampling import sample_density

    given = {"chains": options.n, "seed": options.seed, "sampler.steps": options.steps}
    own = [f"--{key}={value}" for key, value in given.items() if value is not None]
    config = Checked(Chains, read(options.source, [*overrides, *own]))
    print(sample_density(config, options.out or Path("runs") / Path(options.source).stem))


def run_score(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi score``."""
    quiet()
    from dxmi.artefacts import score_images
    from dxmi.data import Data

    energies = score_images(options.source, Data(path=options.images, column=options.column))
    if options.json:
        options.json.write_text(json.dumps(energies) + "\n")
        print(options.json)
    else:
        print("\n".join(f"{energy:.6g}" for energy in energies))


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
        print(f"{plugin.group.removeprefix('dxmi.'):<11} {plugin.name:<12} {plugin.value}  ({owner}){problem}")


def quiet() -> None:
    """Leave the screen to dxmi's own progress bar."""
    import datasets
    from diffusers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
