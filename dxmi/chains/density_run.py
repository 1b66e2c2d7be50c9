"""``dxmi sample CONFIG``: chains on a known density, from config to files."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dxmi.api.errors import require
from dxmi.api.files import whole_folder
from dxmi.chains.density import ChainSamples, known_cost, run_chains
from dxmi.chains.density_pictures import save_picture
from dxmi.config import ChainsConfig, Checked
from dxmi.config.run_file import write_run_file
from dxmi.screen import Screen


def chains_of(config: Checked[ChainsConfig]) -> ChainSamples:
    """The chains of a config, with a bar of their steps.

    Raises:
        ConfigError: what the config asks for cannot be
        FloatingPointError: a chain is not finite
    """
    return run_built(built(config))


def built(config: Checked[ChainsConfig]) -> ChainsConfig:
    """The density and the chain on the GPU, if there is one. Raises ConfigError if they do not fit."""
    torch.manual_seed(config.values.seed)
    run = config.build()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in filter(None, (run.energy, run.sampler, run.value)):
        module.to(device)
    known_cost(run.energy, run.sampler, run.value)  # complains before the bar is on the screen
    return run


def run_built(run: ChainsConfig) -> ChainSamples:
    """``run_chains`` of these parts."""
    with Screen().bar("steps", run.sampler.steps) as bar:
        return run_chains(
            run.energy,
            run.sampler,
            run.chains,
            value=run.value,
            seed=run.seed,
            draws=run.draws,
            watch=run.watch,
            tell=bar.reach,
        )


def save_chains(config: Checked[ChainsConfig], out: Path) -> dict[str, Any]:
    """Run the chains and write ``out``: samples.safetensors, diagnostics.json, picture.png, run.yaml.

    The folder appears when everything in it is written. Returns the content of diagnostics.json.

    Raises:
        ConfigError: what the config asks for cannot be, or ``out`` is taken
        FloatingPointError: a chain is not finite
    """
    require(not out.exists(), "out", f"{out} is already there", "give another folder")
    run = built(config)
    chains = run_built(run)
    own = {k: v.cpu() for k, v in run.sampler.report().items() if isinstance(v, Tensor) and len(v.shape) == 1}
    states = {"samples": chains.samples.contiguous().cpu(), "energies": chains.energies.cpu()}
    device = chains.samples.device.type
    stamp = {"dxmi": version("dxmi"), "torch": torch.__version__, "seed": run.seed, "device": device}
    report = chains.diagnostics | {"stamp": stamp}
    with whole_folder(out) as draft:
        draft.mkdir()
        save_file({**own, **states, "trace_energies": chains.trace_energies.cpu()}, draft / "samples.safetensors")
        (draft / "diagnostics.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        write_run_file(draft, config.resolved)
        save_picture(run.energy, chains, draft / "picture.png", run.sampler.tau)
    return report
