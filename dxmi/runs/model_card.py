"""The model card: README.md of the pipeline that a run leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from dxmi.pipelines import PipelineCall, call_of_folder

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PLACE = "path/of/this/folder"


def model_card(
    folder: Path,
    config: dict[str, Any],
    steps: int,
    figures: str | None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write README.md: what the pipeline is, how to load it, its figures and what they were made with.

    Args:
        folder: the pipeline's
        config: of the run, with every default
        steps: T
        figures: Markdown of what was measured and how; None where nothing was
        options: what the pipeline has to be called with, beside what every pipeline of its class is
    """
    teacher = str(config["sampler"].get("teacher", config["sampler"]["name"]))
    on_hub = from_hub(teacher)
    teacher = teacher if on_hub else Path(teacher).name
    path, density = (config["data"][key] for key in ("path", "density"))
    data = density["name"] if path is None else public(path)
    used = call_of_folder(folder) if (folder / "model_index.json").exists() else None
    sampler = {key: value for key, value in config["sampler"].items() if key != "teacher"}
    settings = {"sampler": sampler, **{key: config[key] for key in ("game", "lr", "optimizer", "betas", "ema")}}
    loading = (
        "" if used is None else snippet(folder, used, config["sampler"].get("prompts") or [], steps, options or {})
    )
    if (folder / "lora").is_dir():
        loading += adapter(folder, teacher)
    text = f"""# {Path(teacher).name} in {steps} steps

Fine-tuned with dxmi (Maximum Entropy Inverse RL of Diffusion Models with Energy-Based Models, NeurIPS 2024) on {data},
{config["steps"]} rounds, seed {config["seed"]}. Teacher: {teacher}. The weights are the moving average of the
fine-tuned ones.

{loading}
Settings: `{json.dumps(settings)}`
"""
    if figures is not None:
        text += f"\n{figures}"
    data_for_hub = front_matter(used, teacher if on_hub else None).to_yaml()
    ModelCard(f"---\n{data_for_hub}\n---\n{text}").save(folder / "README.md")


def public(name: str) -> str:
    """A dataset's hub id as it is; of a local path the last part alone."""
    return name if HUB_ID.fullmatch(name) and not Path(name).exists() else Path(name).name


def from_hub(name: str) -> bool:
    """Whether a teacher was loaded from the hub, and so is in its cache: not every path that is absent is a hub id."""
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        return False
    try:
        return isinstance(try_to_load_from_cache(name, "model_index.json"), str)
    except HFValidationError:
        return False


def front_matter(used: PipelineCall | None, teacher: str | None) -> ModelCardData:
    """What the hub reads of a card. A licence is not known here, so none is claimed."""
    task = None
    if used is not None:
        task = "text-to-image" if used.captions else "unconditional-image-generation"
    return ModelCardData(library_name="diffusers", tags=["dxmi", "few-step"], pipeline_tag=task, base_model=teacher)


def snippet(folder: Path, used: PipelineCall, prompts: list[str], steps: int, options: Mapping[str, Any]) -> str:
    """The lines of Python that load the pipeline in ``folder`` and draw a few images."""
    index = json.loads((folder / "model_index.json").read_text())
    module, kind = index["scheduler"]
    code = (folder / "scheduler" / f"{module}.py").is_file()
    loaded = {"trust_remote_code": True} if code else {}
    # Stable Diffusion 3 was saved without T5, and diffusers wants to be told
    absent = (key for key, value in index.items() if value == [None, None])
    loaded |= {key: None for key in absent if key.startswith(("text_encoder", "tokenizer"))}
    labels = list(range(min(used.classes or 1, 4)))
    number = 4 if used.captions or used.classes else 16
    given = used.options(number, labels, prompts or ["a photo"]) | used.once | {"num_inference_steps": steps, **options}
    note = f"# The scheduler, {kind}, comes with diffusers: no code but its own is run."
    if code:
        note = (
            f"# The code to trust is scheduler/{module}.py, the few-step scheduler: read it first. dxmi is not needed."
        )
    place = ", ".join([f'"{PLACE}"', *arguments(loaded)])
    lines = [
        "from diffusers import DiffusionPipeline",
        "",
        note,
        f"pipeline = DiffusionPipeline.from_pretrained({place})",
        f"images = pipeline({', '.join(arguments(given))}).images",
    ]
    return python(lines)


def adapter(folder: Path, teacher: str) -> str:
    """The lines of Python that load the adapters alone."""
    module, kind = json.loads((folder / "model_index.json").read_text())["scheduler"]
    code = (folder / "scheduler" / f"{module}.py").is_file()
    source = ["import sys", "", f'sys.path.append("{PLACE}/scheduler")', f"from {module} import {kind}"]
    lines = [
        *(source if code else [f"from diffusers import {kind}"]),
        "from diffusers import DiffusionPipeline",
        "",
        f'scheduler = {kind}.from_pretrained("{PLACE}/scheduler")',
        f'pipeline = DiffusionPipeline.from_pretrained("{teacher}", scheduler=scheduler)',
        f'pipeline.load_lora_weights("{PLACE}/lora")',
    ]
    return "The adapters alone, for the unchanged teacher:\n\n" + python(lines)


def python(lines: list[str]) -> str:
    """Code as Markdown has it."""
    return "\n".join(["```python", *lines, "```", ""])


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as Python is written."""
    return [f"{key}={value!r}" for key, value in options.items()]
