"""``dxmi sample``: what a source is, and drawing from it. Torch is imported when it is needed."""

from __future__ import annotations

import argparse
from pathlib import Path

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.cli.config_options import configured, quiet
from dxmi.runs.folder import learned_shape

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def run_sample(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample``."""
    if options.n is not None and options.n < 1:
        raise ConfigError("-n", "give at least 1")
    if options.config and Path(options.config).suffix in (".yaml", ".yml"):
        run_density(options, overrides)
        return
    if options.help:
        print(options.own_help())
        return
    if not options.config:
        raise ConfigError("sample", "give a run, a pipeline or a config, such as configs/banana_mala.yaml")
    if overrides or options.print_config:
        given = overrides[0] if overrides else "--print_config"
        raise ConfigError(given, "a pipeline takes no such option", "see 'dxmi sample --help'")
    quiet()
    folder = Path(options.config)
    if (folder / "run.yaml").exists() and (folder / "energy").is_dir() and not (folder / "pipeline").exists():
        run_learned_again(options)
        return
    if (folder / "sampler").is_dir():
        run_density_again(options)
        return
    if (folder / "run.yaml").exists() and not (folder / "pipeline").exists():
        raise ConfigError(options.config, "holds no finished run", "'dxmi train ... --resume' goes on with it")
    from dxmi.chains.image_grids import save_grid
    from dxmi.runs.folder import own_prompts
    from dxmi.runs.sample import sample_pipeline

    out, prompts = target(options.out, "grid.png"), options.prompt or own_prompts(folder)
    save_grid(sample_pipeline(options.config, options.n or 64, options.steps, options.seed or 0, prompts), out)
    print(out)


def run_density(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi sample CONFIG``."""
    from dxmi.config.chains import ChainsConfig
    from dxmi.config.yaml_files import read

    if "steps" in (read(options.config) if Path(options.config).is_file() else {}):
        raise ConfigError(options.config, "is for 'dxmi train', and 'dxmi sample RUN' draws from the run it leaves")
    given = {"chains": options.n, "seed": options.seed, "sampler.steps": options.steps}
    own = [f"--{key}={value}" for key, value in given.items() if value is not None]
    config = configured(ChainsConfig, options, [*overrides, *own])
    if config is not None:
        from dxmi.chains.density_run import sample_density

        print(sample_density(config, options.out or Path("runs") / Path(options.config).stem))


def run_density_again(options: argparse.Namespace) -> None:
    """``dxmi sample RUN`` of a run on a known density."""
    from safetensors.torch import save_file

    from dxmi.runs.sample import sample_density_run

    if options.steps is not None:
        raise ConfigError("--steps", "a learned sampler has the steps it was trained with")
    out = target(options.out, "samples.safetensors")
    save_file(sample_density_run(Path(options.config), options.n or 1000, options.seed or 0), out)
    print(out)


def run_learned_again(options: argparse.Namespace) -> None:
    """``dxmi sample RUN`` of a run on data that left no pipeline."""
    from safetensors.torch import save_file

    from dxmi.chains.image_grids import save_grid
    from dxmi.runs.sample import sample_learned

    if options.steps is not None:
        raise ConfigError("--steps", "a sampler or a chain that an energy was learned with has the steps of that run")
    shape = learned_shape(Path(options.config))
    require(shape is not None, options.config, "holds no finished run that can be drawn from")
    images = len(shape or ()) == 3
    out = target(options.out, "grid.png" if images else "samples.safetensors")
    samples = sample_learned(Path(options.config), options.n, options.seed or 0).cpu()
    if images:
        save_grid(samples, out)
    else:
        save_file({"samples": samples.contiguous()}, out)
    print(out)


def target(given: Path | None, usual: str) -> Path:
    """The file to write, ``usual`` where none is given.

    Raises:
        ConfigError: its folder is missing, or the given file exists or is of another kind
    """
    out, picture = given or Path(usual), usual.endswith(".png")
    require(out.parent.is_dir(), "--out", f"there is no folder {out.parent}")
    require(given is None or not out.exists(), "--out", f"{out} exists", "give another file")
    kind = "a picture, such as grid.png" if picture else "samples, such as samples.safetensors"
    require((out.suffix in PICTURES) == picture, "--out", f"{out} would hold {kind}")
    return out
