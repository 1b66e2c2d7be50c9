"""Networks from scratch, without a game: teachers, score models and energies (``dxmi pretrain``)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.api.errors import require
from dxmi.config import Checked, PretrainConfig, check_given
from dxmi.config.given import Given, default_out
from dxmi.config.machine import check_processes
from dxmi.data import Source, draw_batch, load_data
from dxmi.game import descend
from dxmi.pretraining.model import Model
from dxmi.pretraining.noise_levels import ddpm_model, multi_noise_model
from dxmi.pretraining.one_score import score_model
from dxmi.pretraining.reconstruction import reconstruction_model
from dxmi.runs.folder import Run, holds_network
from dxmi.screen import Screen


def pretrain(config: Given | Checked[PretrainConfig], out: str | Path | None = None, **overrides: Any) -> Path:
    """Train a network from scratch, without a game, and save its average; returns the folder.

    Args:
        config: a YAML file, or the same as a mapping; ``PretrainConfig`` tells its keys
        out: folder that holds no network yet; None is ``runs/<name of the config>``
        overrides: keys laid over the config, as ``**{"data.batch_size": 8}``

    A UNet becomes a ``DDPMPipeline``, with classes a ``ConsistencyModelPipeline``, which passes them to the network;
    an energy a folder that ``load_energy`` reads, a score network one for ``load_score``.

    Raises:
        ConfigError: what the config asks for cannot be built
        FloatingPointError: the loss is not finite; nothing is written
    """
    checked, folder = check_given(PretrainConfig, config, overrides), default_out(config) if out is None else Path(out)
    taken = folder.is_file() or holds_network(folder) or Run.find(folder) is not None
    require(not taken, "out", f"{folder} already holds a pipeline, a network, a run or a file", "give another folder")
    require(0 <= checked.values.seed < 2**32, "seed", f"{checked.values.seed} is not between 0 and 2^32 - 1")
    set_seed(checked.values.seed)
    run = checked.build()
    source = load_data(run.data)
    set_seed(run.seed)
    kinds = {"ddpm": ddpm_model, "multi_noise": multi_noise_model, "reconstruction": reconstruction_model}
    learn(run, source, kinds.get(run.objective, score_model)(run, source), checked.resolved, folder)
    return folder


def learn(run: PretrainConfig, source: Source, model: Model, resolved: dict[str, Any], out: Path) -> None:
    """All steps of the optimiser; the averaged network and its figures go to ``out``.

    Args:
        run: rates, steps and the like
        source: where batches come from
        model: the network, its loss and its files
        resolved: the config with every default, for the files
        out: the folder

    Raises:
        FloatingPointError: the loss is not finite; nothing is written
    """
    from diffusers.optimization import get_cosine_schedule_with_warmup

    # an energy's additive constant is in no score, and distributed training has to know that it stays without gradient
    spare = DistributedDataParallelKwargs(find_unused_parameters=run.energy is not None)
    accelerator = Accelerator(kwargs_handlers=[spare])
    check_processes(accelerator)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=run.lr)
    schedule = get_cosine_schedule_with_warmup(optimizer, run.warmup, run.steps)
    network, optimizer = accelerator.prepare(model.network, optimizer)
    ema = AveragedModel(model.network, multi_avg_fn=get_ema_multi_avg_fn(run.ema))  # type: ignore[no-untyped-call]
    set_seed(run.seed, device_specific=True)
    with Screen(accelerator.is_main_process).bar("pretraining", run.steps) as bar:
        for k in range(run.steps):
            batch = draw_batch(source, run.data, k, run.seed, accelerator)
            loss = model.loss(network, batch)
            descend(loss, network, optimizer, accelerator, run.clip, partial(not_finite, k))
            schedule.step()
            ema.update_parameters(model.network)
            bar.advance(1)
    if accelerator.is_main_process:
        figures = {"last loss": loss.item(), **model.save(ema.module.eval(), out, resolved)}
        print(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    accelerator.wait_for_everyone()
    accelerator.end_training()


def not_finite(step: int, what: str) -> str:
    """What is said where the loss or its gradient is not finite."""
    return f"the loss or its gradient is not finite in step {step}; lower lr"
