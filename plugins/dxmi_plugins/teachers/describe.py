"""What a pipeline is, read off its configs and the headers of its weights, and the run that would fine-tune it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
from accelerate import init_empty_weights
from safetensors import safe_open

from dxmi.api import ConfigError, Levels
from dxmi.api.errors import first_line
from dxmi.pipelines import family_of
from dxmi_plugins.schedulers.annealed_langevin import AnnealedLangevinScheduler
from dxmi_plugins.teachers.spaces import Pixels
from dxmi_plugins.teachers.teacher import check_files, find_folder

LARGE = 3e8  # weights of a network that few can tune as a whole

NETWORKS = ("unet", "transformer", "vae", "vqvae")


def describe(source: str, trust_remote_code: bool) -> dict[str, Any]:
    """Everything that its files tell of a pipeline; JSON types.

    Raises:
        ConfigError: it is no pipeline that could be a teacher
    """
    try:
        folder = find_folder(source, trust_remote_code)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError("teacher", f"{source} cannot be had from the hub: {first_line(error)}") from error
    files = check_files(source, folder, trust_remote_code)
    index = files.index
    parts = {key: value for key, value in index.items() if isinstance(value, list) and value[0] and key[0] != "_"}
    pipeline = skeleton(source, folder, parts)
    network = pipeline.transformer or pipeline.unet
    if network is None:
        raise ConfigError(source, "has no unet and no transformer", "only pipelines that draw images are supported")
    family = family_of(source, files.kind, pipeline)
    space, levels = family.space(pipeline), family.levels(pipeline)
    family.call(pipeline)  # refuses what is not supported
    size = network.config.sample_size
    states = [network.config.in_channels, *([size, size] if isinstance(size, int) else size)]
    text = "text_encoder" in parts
    classes = None if text else family.conditions(pipeline).classes
    description: dict[str, Any] = {
        "pipeline": index["_class_name"],
        "network": type(network).__name__,
        "prediction_type": levels.prediction_type,
        "schedule": schedule(pipeline.scheduler, levels),
        "images": list(space.image_shape(tuple(states))),
        "latents": None if isinstance(space, Pixels) else states,
        "conditions": "text" if text else "none" if classes is None else f"{classes} classes",
        "parameters": {key: weights(folder / key) for key in parts if any((folder / key).glob("*.safetensors"))},
    }
    learned = description["parameters"].get(family.part, 0)
    return description | {"config": config(source, description, levels, classes, learned > LARGE, trust_remote_code)}


def skeleton(source: str, folder: Path, parts: dict[str, Any]) -> Any:
    """The pipeline with networks that have no weights, and without text encoders."""
    made: dict[str, Any] = {"unet": None, "transformer": None, "text_encoder": None}
    known = {"AnnealedLangevinScheduler": AnnealedLangevinScheduler}
    for key in ("scheduler", *NETWORKS):
        if key not in parts:
            continue
        name = parts[key][1]
        kind: Any = known.get(name) or getattr(diffusers, name, None)
        if kind is None:
            raise ConfigError(source, f"its {key} is a {name}, which diffusers does not have", "it cannot be inspected")
        settings = kind.load_config(folder / key)
        with nullcontext() if key == "scheduler" else init_empty_weights():
            made[key] = kind.from_config(settings)
    return SimpleNamespace(**made)


def schedule(scheduler: Any, levels: Levels) -> dict[str, Any]:
    """The noise levels, the cleanest first."""
    shown = ("beta_schedule", "beta_start", "beta_end", "shift", "sigma_min", "sigma_max", "rho", "sigma_data")
    settings = {key: scheduler.config[key] for key in shown if scheduler.config.get(key) is not None}
    return {
        "scheduler": type(scheduler).__name__,
        **settings,
        "levels": len(levels.alphas),
        "alpha": [round(float(levels.alphas[i]), 6) for i in (0, -1)],
        "sigma": [round(float(levels.sigmas[i]), 6) for i in (0, -1)],
        "zero_terminal_snr": float(levels.alphas[-1]) == 0,
    }


def weights(folder: Path) -> int:
    """How many numbers the safetensors of a part hold; files of a variant, as fp16, only where there are no others."""
    files = sorted(folder.glob("*.safetensors"))
    total = 0
    for file in [file for file in files if file.name.count(".") == 1] or files:
        with safe_open(file, "pt") as opened:
            total += sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118
    return total


def config(
    source: str, description: dict[str, Any], levels: Levels, classes: int | None, large: bool, trust_remote_code: bool
) -> dict[str, Any]:
    """A run that fine-tunes the pipeline: the settings of the repository's examples, for its kind."""
    channels, height, _ = description["images"]
    text, exploding = description["conditions"] == "text", bool((levels.alphas == 1).all())
    data: dict[str, Any] = {"path": "./data", "size": height, "batch_size": 4 if large else 64}
    data |= {"caption": "text"} if text else {} if classes is None else {"label": "label"}
    energy: dict[str, Any] = {"name": "conv", "width": 128 if height > 16 else 32}
    energy |= {"text": True} if text else {} if classes is None else {"classes": classes}
    nodes = "karras" if levels.sigma_data is not None or exploding else "trailing"
    if description["schedule"]["zero_terminal_snr"] and levels.prediction_type == "epsilon":
        nodes = "leading"  # at the last level the network sees no signal
    folder = Path(source).expanduser()
    sampler: dict[str, Any] = {
        "teacher": str(folder.resolve()) if folder.is_dir() else source,
        "scheduler": {"name": "ancestral", "steps": 4, "nodes": nodes},
    }
    sampler |= {"trust_remote_code": True} if trust_remote_code else {}
    sampler |= {"prompts": ["a photograph", "a drawing"]} if text else {}
    sampler |= {"guidance": 5.0} if text else {}  # nobody draws from text without
    sampler |= {"lora": {"rank": 16}, "precision": "bfloat16"} if large else {}
    game = {"tau1": 0.1, "tau2": 0.01, "avr": 0.99, "warmup": 50, "noise": 0.1} | ({"imitate": 0.1} if text else {})
    return {
        "seed": 0,
        "steps": 2000,
        "data": data,
        "energy": energy,
        "sampler": sampler,
        "game": game,
        "lr": {"energy": 1e-4, "sampler": 1e-4 if large else 1e-6, "std": 1e-4},
        "ema": 0.99,
        "evaluators": [],
    }
