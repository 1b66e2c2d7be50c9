"""What the command line looks like. Standard library only, so that help is there at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

EPILOG = """Every key of a config can be overridden: --steps 100, --sampler.scheduler.steps 2, --energy mlp.
'dxmi train CONFIG --help' explains every key, with the options of the plugins that CONFIG names.
Exit status: 0 done, 2 what you gave is wrong (one line says what), 1 it failed while running."""


FOLDER = "folder to write (default: runs/<name of the config>)"


class Parser(argparse.ArgumentParser):
    """One whose errors are one line, as all others."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"dxmi: {message}; see '{self.prog} --help'\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = Parser(
        prog="dxmi",
        description="Fine-tune diffusers pipelines to a few steps; sample from known densities.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command")
    use = (add_sample, add_evaluate, add_score, add_export, add_push)
    for add in (add_inspect, add_train, add_pretrain, *use, add_plugins):
        add(commands)
    return parser


def without_pairs(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without ``--key.sub VALUE``, and these: argparse would take VALUE for what it has a place for."""
    rest, pairs, given = list[str](), list[str](), iter(argv)
    for argument in given:
        own = argument.startswith("--") and "." in argument.partition("=")[0]
        (pairs if own else rest).append(argument)
        if own and "=" not in argument:
            pairs += [value for value in [next(given, None)] if value is not None]
    return rest, pairs


def command(commands: Any, name: str, about: str, **options: Any) -> argparse.ArgumentParser:
    """One command."""
    found: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, allow_abbrev=False, **options
    )
    return found


def dashed(parser: argparse.ArgumentParser, flag: str, **options: Any) -> None:
    """An option that is also taken with underscores, as keys of configs are spelled; help shows dashes."""
    parser.add_argument(flag, **options)
    parser.add_argument(f"--{flag[2:].replace('-', '_')}", **{**options, "help": argparse.SUPPRESS})


def configured(commands: Any, name: str, about: str, config: str, out: str) -> argparse.ArgumentParser:
    """A command whose keys come from a config, so that its help has to read it first."""
    found = command(commands, name, about, add_help=False)
    found.set_defaults(takes_overrides=True, own_help=found.format_help)
    found.add_argument("config", nargs="?", help=config)
    found.add_argument("--out", type=Path, help=out)
    dashed(found, "--print-config", action="store_true", help="print the config with every default and stop")
    found.add_argument("-h", "--help", action="store_true", help="show every key and stop")
    return found


def add_train(commands: Any) -> None:
    """``dxmi train``."""
    about = "play the game a config describes and leave a pipeline, an energy and an evaluation"
    train = configured(commands, "train", about, "YAML file", FOLDER)
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")


def add_pretrain(commands: Any) -> None:
    """``dxmi pretrain``."""
    about = "train a teacher, a score model or an energy from scratch, without a game"
    configured(commands, "pretrain", about, "YAML file", FOLDER)


def add_sample(commands: Any) -> None:
    """``dxmi sample``."""
    sample = configured(
        commands,
        "sample",
        "draw images from a run or any diffusers pipeline, or run chains on a known density",
        "run folder, pipeline folder or hub id; or a YAML file with energy and sampler",
        "PNG to write (default: grid.png), or of a run on vectors or a known density a file of samples (default: "
        f"samples.safetensors); for a YAML file the {FOLDER}",
    )
    number = "number of images (default: 64), chains (the file's) or samples of a density (1000)"
    sample.add_argument("-n", type=int, help=number)
    sample.add_argument("--seed", type=int, help="of all noise (default: 0, or the file's)")
    sample.add_argument("--prompt", action="append", help="caption for pipelines that draw from text; may be repeated")
    sample.add_argument("--steps", type=int, help="number of steps (default: the pipeline's or the file's)")


def add_evaluate(commands: Any) -> None:
    """``dxmi evaluate``."""
    about = (
        "figures of a pipeline, a run or stored images against reference images, over several seeds; or of a run on a "
        "known density, beside those of the density's own samples"
    )
    evaluate = command(commands, "evaluate", about, add_help=False)
    evaluate.set_defaults(takes_overrides=True, own_help=evaluate.format_help)
    evaluate.add_argument("-h", "--help", action="store_true", help="show this and the evaluator's options and stop")
    evaluate.add_argument("source", nargs="?", help="pipeline folder or hub id, run, folder of images or dataset")
    reference = (
        "dataset or folder of images, all of which are read into memory, or published statistics (.npz); its options, "
        "and those of a stored source, follow as --reference.split test: split, subset, column, label, size"
    )
    evaluate.add_argument("--reference", help=reference)
    floor = "row of the data's own: other images, as a test set, against the reference; none leaves it out (default: "
    evaluate.add_argument("--floor", help=floor + "halves, random halves of the reference against each other)")
    evaluate.add_argument(
        "--metrics",
        help="which, as in fid,kid,isc,prc,accuracy,shares,nearest; of a run on a known density ess,w2 and so on: "
        "elbo, eubo, log_z, log_z_forward, log_z_exact, ess and those of the evaluator densities (default: all that "
        "can be had but nearest)",
    )
    evaluate.add_argument(
        "--evaluator",
        help="plugin that measures images (default: fidelity); its options follow as --evaluator.bootstrap 100",
    )
    evaluate.add_argument("--extractor", help="of the evaluator: what makes features of images")
    number = "number of samples (default: as many as the reference has), or paths of a density (the run's)"
    evaluate.add_argument("-n", type=int, help=number)
    evaluate.add_argument("--seeds", help="of pipelines: a measurement for each (default: 0,1,2)")
    evaluate.add_argument("--seed", type=int, help="of a run on a known density (default: the run's)")
    batch = "images drawn at once, at most 256 (default: 64); they do not depend on it"
    dashed(evaluate, "--batch-size", type=int, help=batch)
    evaluate.add_argument("--scheduler", help="classes of diffusers in place of the pipeline's, as A,B: a row for each")
    evaluate.add_argument("--steps", help="numbers of steps, as 4,10,50: a row for each (default: the pipeline's)")
    evaluate.add_argument(
        "--prompt", action="append", help="caption for pipelines that draw from text; may be repeated"
    )
    like = "of a run: say how many steps of this solver of its teacher it is like, as unipc (measured at 2 to 10)"
    dashed(evaluate, "--steps-like", metavar="SOLVER", help=like)
    evaluate.add_argument("--column", help="column of images (default: image)")
    labels = "column of labels, where there is one, for the accuracy of stored images, the floor's among them"
    evaluate.add_argument("--label", help=labels)
    both = "two reports, or their folders, in one table, if made alike"
    evaluate.add_argument("--compare", nargs=2, type=Path, metavar="JSON", help=both)
    out = (
        "folder for the table, the JSON, the picture and the images, which running again takes up; of a density a JSON "
    )
    evaluate.add_argument("--out", type=Path, help=out + "file (default: RUN/evaluation-<seed>.json)")


def add_score(commands: Any) -> None:
    """``dxmi score``."""
    score = command(commands, "score", "energies of images or vectors under a run's energy: low means like the data")
    score.add_argument("source", help="run folder or energy folder")
    score.add_argument("images", help="Parquet file, folder of images or hub id")
    score.add_argument("--column", default="image", help="column of images or lists of numbers (default image)")
    labels = "column of 0 for good and 1 for defect: also tell the AUROC of the energies as anomaly scores"
    score.add_argument("--labels", metavar="COLUMN", help=labels)
    classes = "column of the kind of thing each item is: AUROC of each kind, and their mean"
    score.add_argument("--classes", metavar="COLUMN", help=classes)
    written = "file to write the list of energies to (default: print it); with --labels an object with AUROC too"
    score.add_argument("--json", type=Path, help=written)


def add_inspect(commands: Any) -> None:
    """``dxmi inspect``."""
    about = "say what a diffusers pipeline is, and print the config that would fine-tune it"
    inspect = command(commands, "inspect", about)
    inspect.add_argument("pipeline", help="pipeline folder or hub id")
    inspect.add_argument("--json", type=Path, help="file to write all of it to")
    inspect.add_argument("--config", type=Path, help="YAML file to write the config to")
    dashed(inspect, "--trust-remote-code", action="store_true", help="whether the pipeline's Python files may run")


def add_export(commands: Any) -> None:
    """``dxmi export``."""
    about = "write a finished run's pipeline for others, with its scheduler's source or of diffusers' classes alone"
    export = command(commands, "export", about)
    export.add_argument("run", help="run folder")
    modes = "exact: with the few-step scheduler's source; stock: no code, other stds, and the loss is measured"
    export.add_argument("--mode", choices=["exact", "stock"], default="exact", help=modes)
    export.add_argument("--out", type=Path, required=True, help="folder to write")


def add_push(commands: Any) -> None:
    """``dxmi push``."""
    about = "send a pipeline and its card to the Hugging Face hub; without --yes print what would go"
    push = command(commands, "push", about)
    push.add_argument("source", help="run folder or exported pipeline's folder")
    push.add_argument("repo", metavar="repo-id", help="name of the repository: owner/name")
    push.add_argument("--private", action="store_true", help="make the repository private if it is created")
    push.add_argument("--yes", action="store_true", help="send it")


def add_plugins(commands: Any) -> None:
    """``dxmi plugins``."""
    listing = command(commands, "plugins", "list installed plugins and what is wrong with them")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument("--check", action="store_true", help="import every plugin, to find all that fail")
