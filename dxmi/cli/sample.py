"""``dxmi sample``: what a source is, and where its samples go. Torch is imported when it is needed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dxmi.api.errors import ConfigError, require
from dxmi.cli.config_options import configured, quiet

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def run_sample(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample``."""
    require(options.n is None or options.n >= 1, "n", "give at least 1")
    if options.config and Path(options.config).suffix in (".yaml", ".yml"):
        run_chains_of(options, overrides)
        return
    if options.help:
        print(options.own_help())
        return
    if not options.config:
        raise ConfigError("sample", "give a run, a pipeline or a config, such as configs/banana_mala.yaml")
    if overrides or options.print_config:
        given = overrides[0] if overrides else "--print-config"
        raise ConfigError(given, "a pipeline takes no such option", "see 'dxmi sample --help'")
    quiet()
    draw_from(options)


def run_chains_of(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample CONFIG``."""
    from dxmi.config import ChainsConfig, read_yaml

    if "steps" in (read_yaml(options.config) if Path(options.config).is_file() else {}):
        raise ConfigError(options.config, "is for 'dxmi train', and 'dxmi sample RUN' draws from the run it leaves")
    given = {"chains": options.n, "seed": options.seed, "sampler.steps": options.steps}
    own = [f"--{key}={value}" for key, value in given.items() if value is not None]
    config = configured(ChainsConfig, options, [*overrides, *own])
    if config is None:
        return
    from dxmi.chains import save_chains
    from dxmi.screen import Screen

    out = options.out or Path("runs") / Path(options.config).stem
    report = save_chains(config, out)
    print(json.dumps(report, indent=2))
    for line in report["warnings"]:
        Screen().warn(line)
    print(out)


def draw_from(options: argparse.Namespace) -> None:
    """``dxmi sample RUN|PIPELINE``: a grid of images, or a file of what is no image."""
    from safetensors.torch import save_file

    from dxmi.chains import save_grid
    from dxmi.runs.folder import Run
    from dxmi.runs.sample import sample_tensors

    run = Run.find(options.config)
    if run is not None:
        run.require_finished()
    images = run is None or run.has_images
    out = target(options.out, "grid.png" if images else "samples.safetensors")
    drawn = sample_tensors(options.config, options.n, options.seed or 0, options.steps, options.prompt or ())
    if images:
        save_grid(drawn["samples"], out)
    else:
        save_file(drawn, out)
    print(out)


def target(given: Path | None, usual: str) -> Path:
    """The file to write, ``usual`` where none is given.

    Raises:
        ConfigError: its folder is missing, or the given file exists or is of another kind
    """
    out, picture = given or Path(usual), usual.endswith(".png")
    require(out.parent.is_dir(), "out", f"there is no folder {out.parent}")
    require(given is None or not out.exists(), "out", f"{out} exists", "give another file")
    kind = "a picture, such as grid.png" if picture else "samples, such as samples.safetensors"
    require((out.suffix in PICTURES) == picture, "out", f"{out} would hold {kind}")
    return out
