"""``dxmi sample CONFIG``: chains on a known density, from config to files."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor

from dxmi.api import ConfigError
from dxmi.chains.density import ChainSamples, known_cost, run_chains
from dxmi.chains.density_pictures import save_picture
from dxmi.config.chains import ChainsConfig
from dxmi.config.checked import Checked

console = Console(stderr=True)


def sample_density(config: Checked[ChainsConfig], out: Path) -> Path:
    """Run the chains and write ``out``: samples.safetensors, diagnostics.json, picture.png, run.yaml.

    The folder appears when everything in it is written.

    Raises:
        ConfigError: what the config asks for cannot be, or ``out`` is taken
        FloatingPointError: a chain is not finite
    """
    if out.exists():
        raise ConfigError("out", f"{out} is already there", "give another folder")
    torch.manual_seed(config.values.seed)
    run = config.build()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in filter(None, (run.energy, run.sampler, run.value)):
        module.to(device)
    known_cost(run.energy, run.sampler, run.value)  # complains before the bar is on the screen
    drawn = run_with_bar(run)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    told = {k: v.cpu() for k, v in run.sampler.report().items() if isinstance(v, Tensor) and len(v.shape) == 1}
    tensors = {"samples": drawn.samples.contiguous().cpu(), "energies": drawn.energies.cpu()}
    save_file({**told, **tensors, "trace_energies": drawn.trace_energies.cpu()}, partial / "samples.safetensors")
    stamp = {"dxmi": version("dxmi"), "torch": torch.__version__, "seed": run.seed, "device": device.type}
    report = json.dumps(drawn.diagnostics | {"stamp": stamp}, indent=2, allow_nan=False)
    (partial / "diagnostics.json").write_text(report + "\n")
    (partial / "run.yaml").write_text(yaml.safe_dump(config.resolved, sort_keys=False))
    save_picture(run.energy, drawn, partial / "picture.png", run.sampler.tau)
    partial.rename(out)
    print(report)
    for line in drawn.diagnostics["warnings"]:
        console.print(f"warning: {line}", style="yellow")
    return out


def run_with_bar(run: ChainsConfig) -> ChainSamples:
    """The chains of a config, with a progress bar."""
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("steps", total=run.sampler.steps)
        return run_chains(
            run.energy,
            run.sampler,
            run.chains,
            value=run.value,
            seed=run.seed,
            draws=run.draws,
            watch=run.watch,
            tell=lambda step: progress.update(task, completed=step),
        )
