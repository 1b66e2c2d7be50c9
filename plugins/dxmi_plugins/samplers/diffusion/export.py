"""Students as folders of pipelines: exact, with the source of their scheduler, or of diffusers' own classes alone."""

from __future__ import annotations

import copy
import inspect
import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from scipy.optimize import brentq
from torch import Generator, Tensor

from dxmi.api import ConfigError, randn
from dxmi_plugins.schedulers.few_step import FewStepScheduler, std_up
from dxmi_plugins.teachers.teacher import Teacher

Network = Any
EXACT = "or export exact"


def save_pipeline(teacher: Teacher, network: Network, scheduler: Any, folder: Path) -> None:
    """Write the folder; a scheduler that is not one of diffusers' own brings its source."""
    network.register_to_config(_name_or_path="")  # else the folder that the teacher was read from
    own = not type(scheduler).__module__.startswith("diffusers.")
    part = network if own else without_variance(network)
    teacher.family.student(teacher.pipeline, part, scheduler).save_pretrained(folder)
    if own:
        source = Path(inspect.getfile(type(scheduler)))
        shutil.copy(source, folder / "scheduler" / source.name)
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"] = [source.stem, type(scheduler).__name__]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_network(network: Network, folder: Path) -> Network:
    """The network that ``save_pipeline`` wrote into ``folder``, of the same class as ``network``."""
    return type(network).from_pretrained(folder, use_safetensors=True).eval()


def without_variance(network: Network) -> Network:
    """A UNet without the channels of a learned variance, which stock schedulers would not let go unused."""
    if not isinstance(network, UNet2DModel) or network.config.out_channels == network.config.in_channels:
        return network
    channels: int = network.config.in_channels
    weights = dict(network.state_dict())
    for key in ("conv_out.weight", "conv_out.bias"):
        weights[key] = weights[key][:channels]
    smaller = UNet2DModel.from_config({**network.config, "out_channels": channels})
    smaller.load_state_dict(weights)
    return smaller.eval()


def stock_scheduler(teacher: Teacher, schedule: Any) -> tuple[Any, Tensor, dict[str, Any]]:
    """A scheduler of diffusers' own with the means of ``schedule``.

    Returns:
        the scheduler, its stds (T,), which are those of MATH (2.1) and 0 at the end, and what pipelines have to be
        called with for it beside the number of steps

    Raises:
        ConfigError: there is none
    """
    if not isinstance(schedule, FewStepScheduler):
        raise ConfigError(
            "scheduler", f"what stock schedulers make of {type(schedule).__name__} is not known", "export exact"
        )
    eta = float(schedule.config.eta)
    if eta not in (0, 1):
        raise ConfigError(
            "scheduler.eta", f"a stock scheduler makes steps with eta 0 or 1, not {eta:g}", f"train with one, {EXACT}"
        )
    _, a_t, s_t, a_s, s_s, _ = schedule.rows.unbind(1)
    if s_s[-1] > 0:
        raise ConfigError("scheduler.extra_node", "stock schedulers end at the data", f"train without, {EXACT}")
    stds = eta * std_up(a_t, s_t, a_s, s_s)
    tied = FewStepScheduler.from_config(schedule.with_stds(stds.tolist()).config, clip_sample=False)  # pipelines clip
    for candidate, options in candidates(teacher, schedule, eta):
        with warnings.catch_warnings(action="ignore"):  # Stable Diffusion's pipeline changes schedulers' configs
            used = teacher.family.student(teacher.pipeline, teacher.network, candidate).scheduler
        if same_steps(used, tied, options):
            return used, stds, options
    raise refusal(teacher, schedule, eta)


def candidates(teacher: Teacher, schedule: FewStepScheduler, eta: float) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The schedulers of diffusers' own that may have these steps, and how their pipelines would be called."""
    config, sigma_data = dict(teacher.pipeline.scheduler.config), teacher.levels.sigma_data
    if hasattr(teacher.pipeline.scheduler, "alphas_cumprod"):
        kind = DDPMScheduler if eta else DDIMScheduler
        fixed: dict[str, Any] = {"clip_sample": False, "thresholding": False, "set_alpha_to_one": True}
        fixed |= {"variance_type": "fixed_small"} if eta else {}
        for spacing, offset in (("trailing", 0), ("trailing", 1), ("leading", 0), ("leading", 1), ("linspace", 0)):
            yield kind.from_config({**config, **fixed, "timestep_spacing": spacing, "steps_offset": offset}), {}
    elif sigma_data is not None and not eta and len(schedule) > 1:
        s = teacher.levels.sigmas / teacher.levels.alphas
        rho = karras_rho(schedule.rows[:, 2] / schedule.rows[:, 1], float(s[-1]), float(s[0]))
        yield EDMEulerScheduler.from_config({**config, "rho": rho, "sigma_schedule": "karras"}), {}
    elif teacher.levels.prediction_type == "flow_prediction" and not eta:
        plain = FlowMatchEulerDiscreteScheduler(num_train_timesteps=config["num_train_timesteps"])
        yield plain, {"sigmas": schedule.rows[:, 2].tolist()}  # with the shift of the teacher in them


def karras_rho(nodes: Tensor, most: float, least: float) -> float:
    """The rho with which the second of T nodes from ``most`` to ``least`` follows Karras et al. 2022, eq. 5.

    Looked for between 0.01 and 1000 and rounded to 6 digits; 7 where the ends are all there is, or no rho is right.
    """
    if len(nodes) == 2:
        return 7.0
    share, second = 1 / (len(nodes) - 1), math.log(float(nodes[1]))

    def above(log_rho: float) -> float:  # falls; in logarithms, since most**(1/rho) is beyond all numbers
        rho = math.exp(log_rho)
        ends = math.log(most) / rho + math.log1p(-share), math.log(least) / rho + math.log(share)
        return rho * float(np.logaddexp(*ends)) - second

    low, high = math.log(1e-2), math.log(1e3)
    if not above(low) > 0 > above(high):
        return 7.0
    return round(math.exp(brentq(above, low, high, xtol=1e-14)), 6)


def same_steps(candidate: Any, schedule: FewStepScheduler, options: dict[str, Any]) -> bool:
    """Whether a scheduler of diffusers makes the steps of ``schedule``, tried at each node, noise and all."""
    steps = len(schedule)
    candidate = copy.deepcopy(candidate)
    candidate.set_timesteps(None if options else steps, **options)
    timesteps = candidate.timesteps.double()
    if len(timesteps) != steps or not torch.allclose(timesteps, schedule.rows[:, 0], rtol=1e-5, atol=1e-5):
        return False
    generator = Generator().manual_seed(0)
    x, output = torch.randn(2, 2, 1, 4, 4, generator=generator, dtype=torch.float64)
    for k, (t, row) in enumerate(zip(candidate.timesteps, schedule.rows, strict=True)):
        mean, std = schedule.transition(output, x, torch.tensor([k]))
        ours = mean + std * randn(x.shape, x, Generator().manual_seed(k))
        # EDM's own coordinates are x/alpha; flow and variance-preserving ones are ours
        units = (row[1], row[3]) if hasattr(candidate, "precondition_inputs") else (1.0, 1.0)
        seen = candidate.scale_model_input(x / units[0], t) if hasattr(candidate, "scale_model_input") else x
        theirs = candidate.step(output, t, x / units[0], generator=Generator().manual_seed(k)).prev_sample
        if not torch.allclose(seen, x, rtol=1e-4, atol=1e-4):
            return False
        if not torch.allclose(theirs.double() * units[1], ours, rtol=1e-4, atol=1e-4):
            return False
    return True


def refusal(teacher: Teacher, schedule: FewStepScheduler, eta: float) -> ConfigError:
    """Why there is no stock scheduler, and which key to change."""
    levels = teacher.levels
    nodes = [round(t, 3) for t in schedule.timesteps.tolist()]
    if hasattr(teacher.pipeline.scheduler, "alphas_cumprod"):
        fits = "" if eta else f" and a number of steps that divides {len(levels.timesteps)}"
        return ConfigError(
            "scheduler.nodes",
            f"no stock scheduler has the timesteps {nodes}",
            f"train with nodes: trailing{fits}, {EXACT}",
        )
    if levels.sigma_data is not None:
        what = "EDM steps without new noise alone" if eta else f"no steps at the timesteps {nodes}"
        key = "scheduler.eta" if eta else "scheduler.nodes"
        return ConfigError(key, f"stock schedulers make {what}", f"train with nodes: karras and eta: 0, {EXACT}")
    if levels.prediction_type == "flow_prediction":
        plain = "stock schedulers make flow-matching steps without new noise alone"
        return ConfigError("scheduler.eta", plain, f"train with eta: 0, {EXACT}")
    return ConfigError(
        "teacher", "diffusers has no scheduler of its own for variance-exploding networks", "export exact"
    )
