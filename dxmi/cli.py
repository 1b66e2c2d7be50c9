"""The command line's commands. Torch is imported by the command that needs it."""

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
from dxmi.parser import build_parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    options, overrides = parser.parse_known_args(argv)
    try:
        if overrides and not getattr(options, "takes_overrides", False):
            raise ConfigError(
                f"{overrides[0]}: '{options.command}' has no such option; see 'dxmi {options.command} --help'"
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
    from dxmi.config import Run

    config = configured(Run, options, overrides)
    if config is not None:
        quiet()
        from dxmi.train import train

        out = train(config, options.out or Path("runs") / Path(options.config).stem, options.resume)
        if os.environ.get("RANK", "0") == "0":
            print(f"{out}: {contents(out)}")


def run_pretrain(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi pretrain``."""
    from dxmi.pretrain import Pretrain, pretrain

    config = configured(Pretrain, options, overrides)
    if config is not None:
        quiet()
        out = pretrain(config, options.out or Path("runs") / Path(options.config).stem)
        if os.environ.get("RANK", "0") == "0":
            print(f"{out}: {contents(out)}")


def contents(folder: Path) -> str:
    """What lies in a folder, for the screen."""
    return ", ".join(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()))


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
    if options.config and Path(options.config).suffix in (".yaml", ".yml"):
        run_density(options, overrides)
        return
    if options.help:
        print(options.own_help())
        return
    if not options.config:
        raise ConfigError("sample: give a run, a pipeline or a config, such as configs/banana_mala.yaml")
    if overrides or options.print_config:
        given = overrides[0] if overrides else "--print_config"
        raise ConfigError(f"{given}: a pipeline takes no such option; see 'dxmi sample --help'")
    quiet()
    folder = Path(options.config)
    if (folder / "run.yaml").exists() and (folder / "energy").is_dir() and not (folder / "pipeline").exists():
        run_learned_again(options)
        return
    if (folder / "sampler").is_dir():
        run_density_again(options)
        return
    if (folder / "run.yaml").exists() and not (folder / "pipeline").exists():
        raise ConfigError(f"{options.config}: holds no finished run; 'dxmi train ... --resume' goes on with it")
    from dxmi.artefacts import sample_pipeline, save_grid

    out = options.out or Path("grid.png")
    prompts = options.prompt or ()
    save_grid(sample_pipeline(options.config, options.n or 64, options.steps, options.seed or 0, prompts), out)
    print(out)


def run_density(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample CONFIG``."""
    from dxmi.chains import Chains
    from dxmi.dialect import read

    if "steps" in (read(options.config) if Path(options.config).is_file() else {}):
        raise ConfigError(f"{options.config}: is for 'dxmi train', and 'dxmi sample RUN' draws from the run it leaves")
    given = {"chains": options.n, "seed": options.seed, "sampler.steps": options.steps}
    own = [f"--{key}={value}" for key, value in given.items() if value is not None]
    config = configured(Chains, options, [*overrides, *own])
    if config is not None:
        from dxmi.sampling import sample_density

        print(sample_density(config, options.out or Path("runs") / Path(options.config).stem))


def run_density_again(options: argparse.Namespace) -> None:
    """``dxmi sample RUN`` of a run on a known density."""
    from safetensors.torch import save_file

    from dxmi.densities import sample_density_run

    if options.steps is not None:
        raise ConfigError("--steps: a learned sampler has the steps it was trained with")
    out = options.out or Path("samples.safetensors")
    save_file(sample_density_run(Path(options.config), options.n or 1000, options.seed or 0), out)
    print(out)


def run_learned_again(options: argparse.Namespace) -> None:
    """``dxmi sample RUN`` of a run on data that left no pipeline."""
    from safetensors.torch import save_file

    from dxmi.artefacts import save_grid
    from dxmi.learned import sample_learned

    if options.steps is not None:
        raise ConfigError("--steps: a sampler or a chain that an energy was learned with has the steps of that run")
    samples = sample_learned(Path(options.config), options.n, options.seed or 0).cpu()
    images = samples.ndim == 4
    out = options.out or Path("grid.png" if images else "samples.safetensors")
    if images:
        save_grid(samples, out)
    else:
        save_file({"samples": samples.contiguous()}, out)
    print(out)


def run_evaluate(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi evaluate``."""
    if options.n is not None and options.n < 2:
        raise ConfigError("-n: give at least 2")
    if options.seed is not None and not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed: {options.seed} is not between 0 and 2^32 - 1")
    if options.out is not None and not options.out.parent.is_dir():
        raise ConfigError(f"--out: there is no folder {options.out.parent}")
    if options.out is not None and options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a folder; give a JSON file")
    quiet()
    from dxmi.assess import show
    from dxmi.densities import evaluate_density_run

    wanted = None if options.metrics is None else [name.strip() for name in options.metrics.split(",")]
    found, notes = evaluate_density_run(Path(options.run), options.n, options.seed, wanted)
    show(found["rows"])
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    out = options.out or Path(options.run) / f"evaluation-{found['stamp']['seed']}.json"
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(out)


def run_score(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi score``."""
    quiet()
    from dxmi.artefacts import score
    from dxmi.data import Data

    energies = score(options.source, Data(path=options.images, column=options.column))
    if options.json:
        options.json.write_text(json.dumps(energies) + "\n")
        print(options.json)
    else:
        print("\n".join(f"{energy:.6g}" for energy in energies))


def run_inspect(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi inspect``."""
    quiet()
    from dxmi.inspecting import inspect

    inspect(options.pipeline, options.trust_remote_code, options.json, options.config)


def run_export(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi export``."""
    quiet()
    from dxmi.exporting import export

    export(Path(options.run), options.mode, options.out)
    print(f"{options.out}: {contents(options.out)}")


def run_push(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi push``."""
    from dxmi.pushing import push

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


def quiet() -> None:
    """Leave the screen to dxmi's own progress bar."""
    import datasets
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    datasets.disable_progress_bars()
    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


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
