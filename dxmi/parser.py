"""What the command line looks like. Standard library only, so that help is there at once."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """Every key of a config can be overridden: --steps 100, --sampler.scheduler.steps 2, --energy mlp.
'dxmi train CONFIG --help' explains every key, with the options of the plugins that CONFIG names.
Exit status: 0 done, 2 what you gave is wrong (one line says what), 1 it failed while running."""


def build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = argparse.ArgumentParser(
        prog="dxmi",
        description="Fine-tune diffusers pipelines to a few steps; sample from known densities.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=about, allow_abbrev=False)

    def add_configured(name: str, about: str, config: str, out: str) -> argparse.ArgumentParser:
        """A command whose keys come from a config, so that its help has to read it first."""
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False, add_help=False)
        command.set_defaults(takes_overrides=True, own_help=command.format_help)
        command.add_argument("config", nargs="?", help=config)
        command.add_argument("--out", type=Path, help=out)
        command.add_argument("--print_config", action="store_true", help="print the config with every default and stop")
        command.add_argument("-h", "--help", action="store_true", help="show every key and stop")
        return command

    folder = "folder to write (default: runs/<name of the config>)"
    about = "play the game a config describes and leave a pipeline, an energy and an evaluation"
    train = add_configured("train", about, "YAML file", folder)
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    about = "train a teacher, a score model or an energy from scratch, by score matching"
    add_configured("pretrain", about, "YAML file", folder)
    sample = add_configured(
        "sample",
        "draw images from a run or any diffusers pipeline, or run chains on a known density",
        "run folder, pipeline folder or hub id; or a YAML file with energy and sampler",
        "PNG to write (default: grid.png), or of a run on vectors or a known density a file of samples (default: "
        f"samples.safetensors); for a YAML file the {folder}",
    )
    sample.add_argument(
        "-n", type=int, help="number of images (default: 64), chains (the file's) or samples of a density (1000)"
    )
    sample.add_argument("--seed", type=int, help="of all noise (default: 0, or the file's)")
    sample.add_argument("--steps", type=int, help="number of steps (default: the pipeline's or the file's)")
    evaluate = add(
        "evaluate", "figures of a finished run on a known density, beside those of the density's own samples"
    )
    evaluate.add_argument("run", help="run folder")
    evaluate.add_argument("-n", type=int, help="number of paths (default: the run's)")
    evaluate.add_argument("--seed", type=int, help="of all noise (default: the run's)")
    evaluate.add_argument(
        "--metrics",
        help="which, as in ess,w2: elbo, eubo, log_z, log_z_forward, log_z_exact, ess and those of the evaluator "
        "densities (default: all that can be had)",
    )
    evaluate.add_argument("--out", type=Path, help="JSON file to write (default: RUN/evaluation-<seed>.json)")
    score = add("score", "energies of images or vectors under a run's energy: low means like the data")
    score.add_argument("source", help="run folder or energy folder")
    score.add_argument("images", help="Parquet file, folder of images or hub id")
    score.add_argument("--column", default="image", help="column of images or lists of numbers (default image)")
    score.add_argument("--json", type=Path, help="file to write the list of energies to (default: print it)")
    listing = add("plugins", "list installed plugins and what is wrong with them")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument("--check", action="store_true", help="import every plugin, to find all that fail")
    return parser
