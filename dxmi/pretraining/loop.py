"""Networks from scratch, without a game: teachers, score models and energies (``dxmi pretrain``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config.checked import Checked
from dxmi.config.machine import check_processes
from dxmi.config.pretrain import PretrainConfig
from dxmi.data.load import draw_batch, load_data
from dxmi.pretraining.noise_levels import ddpm_model, multi_noise_model
from dxmi.pretraining.one_score import score_model
from dxmi.pretraining.reconstruction import reconstruction_model


def pretrain(config: Checked[PretrainConfig], out: Path) -> Path:
    """Train and save the averaged network in ``out``, which must not hold one yet.

    A UNet becomes a ``DDPMPipeline``, with classes a ``ConsistencyModelPipeline``, which passes them to the network;
    an energy a folder that ``load_energy`` reads, a score network one for ``load_score``.

    Raises:
        ConfigError: what the config asks for cannot be built
        FloatingPointError: the loss is not finite; nothing is written
    """
    from diffusers.optimization import get_cosine_schedule_with_warmup

    if out.is_file() or any((out / name).exists() for name in ("model_index.json", "config.json", "run.yaml")):
        raise ConfigError("out", f"{out} already holds a pipeline, a network, a run or a file", "give another folder")
    require(0 <= config.values.seed < 2**32, "seed", f"{config.values.seed} is not between 0 and 2^32 - 1")
    set_seed(config.values.seed)
    run = config.build()
    source = load_data(run.data)
    set_seed(run.seed)
    kinds = {"ddpm": ddpm_model, "multi_noise": multi_noise_model, "reconstruction": reconstruction_model}
    model = kinds.get(run.objective, score_model)(run, source)
    # an energy's additive constant is in no score, and distributed training has to know that it stays without gradient
    spare = DistributedDataParallelKwargs(find_unused_parameters=run.energy is not None)
    accelerator = Accelerator(kwargs_handlers=[spare])
    check_processes(accelerator)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=run.lr)
    schedule = get_cosine_schedule_with_warmup(optimizer, run.warmup, run.steps)
    network, optimizer = accelerator.prepare(model.network, optimizer)
    ema = AveragedModel(model.network, multi_avg_fn=get_ema_multi_avg_fn(run.ema))  # type: ignore[no-untyped-call]
    set_seed(run.seed, device_specific=True)
    for k in track(range(run.steps), "pretraining", disable=not accelerator.is_main_process):
        batch = draw_batch(source, run.data, k, run.seed, accelerator)
        loss = descend(model.loss(network, batch), k, network, optimizer, run.clip, accelerator)
        schedule.step()
        ema.update_parameters(model.network)
    if accelerator.is_main_process:
        found = {"last loss": loss.item(), **model.save(ema.module.eval(), out, config.resolved)}
        print(", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return out


def descend(loss: Tensor, k: int, network: nn.Module, optimizer: Any, clip: float, accelerator: Accelerator) -> Tensor:
    """Step ``k`` of the optimiser; the loss without its graph.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the weights have not moved
    """
    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(network.parameters(), clip)
    if not (loss.detach() + (0 if norm is None else norm)).isfinite():
        raise FloatingPointError(f"the loss or its gradient is not finite in step {k}; lower lr")
    optimizer.step()
    return loss.detach()
