"""A pretrained diffusers pipeline as a teacher: all that its own config tells of it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from dxmi.api import Annotations, ConfigError, Levels
from dxmi_plugins.teachers.conditions import Conditions, conditions_of
from dxmi_plugins.teachers.levels import levels_of
from dxmi_plugins.teachers.networks import Call, caller, in_precision
from dxmi_plugins.teachers.spaces import Pixels, Space, space_of

PIPELINES = (
    "DDPMPipeline",
    "DDIMPipeline",
    "PNDMPipeline",
    "ConsistencyModelPipeline",
    "LDMPipeline",
    "DiTPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
)


VARIANT = "fp16"  # the one that pipelines come in


PICKLES = (".bin", ".ckpt", ".pt", ".pth")


CONVERT = (
    "if you trust it: python -c \"from diffusers import DiffusionPipeline as P; P.from_pretrained('{name}', "
    "use_safetensors=False).save_pretrained('converted')\""
)


@dataclass(frozen=True)
class Teacher:
    """A pipeline and how to use it. Copies share it: what students change is their own copy of the network."""

    pipeline: Any
    network_name: str
    """of the network among the pipeline's components: unet or transformer"""
    levels: Levels
    call: Call
    space: Space
    conditions: Conditions

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def network(self) -> nn.Module:
        """The network that predicts, float32, in evaluation mode."""
        return getattr(self.pipeline, self.network_name)  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C,H,W) of the states."""
        config: Any = self.network.config
        size = config.sample_size
        return (config.in_channels, *((size, size) if isinstance(size, int) else size))

    def encode(self, images: Tensor, about: Annotations) -> tuple[Tensor, Tensor | None]:
        """Images (B,C,H,W) in [-1, 1] and labels or captions -> x (B,*S), cond. Raises ConfigError."""
        return self.space.encode(images), self.conditions.encode(about, images.device)


def load_teacher(
    name: str, trust_remote_code: bool = False, precision: str = "float32", like: Teacher | None = None
) -> Teacher:
    """The pipeline in a folder or under a hub id.

    Args:
        name: folder or hub id
        trust_remote_code: whether Python files of the pipeline may run
        precision: of the weights of all its networks, by the name of torch's dtype
        like: the same teacher, loaded before; the two share all parts but network and scheduler

    Raises:
        ConfigError: it is missing, no pipeline, of a kind that is not supported, pickled, or brings code of its own
    """
    parts = {} if like is None else dict(like.pipeline.components)
    for key in ("scheduler", "" if like is None else like.network_name):
        parts.pop(key, None)
    dtype = getattr(torch, precision)
    pipeline = load_pipeline(name, trust_remote_code, {"dtype": dtype, **parts})
    network_name = "transformer" if hasattr(pipeline, "transformer") else "unet"
    network: Any = getattr(pipeline, network_name, None)
    if network is None or getattr(pipeline, "scheduler", None) is None:
        raise ConfigError("teacher", f"{name} has no network and scheduler", f"supported are {', '.join(PIPELINES)}")
    space = space_of(pipeline)
    call, levels = caller(network, space.factor), levels_of(pipeline.scheduler)
    channels, outputs = network.config.in_channels, network.config.out_channels
    if outputs not in (channels, 2 * channels):
        raise ConfigError(
            "teacher", f"the network of {name} makes {outputs} channels of {channels}", "take one that draws"
        )
    if pipeline.scheduler.config.get("thresholding"):
        warnings.warn(f"teacher: the thresholding of {name} is ignored", stacklevel=2)
    network.eval()
    levels = levels._replace(bounded=isinstance(space, Pixels))
    if dtype != torch.float32:
        call = in_precision(call, dtype)
    for vae in space.parts if dtype == torch.float16 else []:
        if vae.config.get("force_upcast"):  # float16 is too narrow for it
            vae.float()
    return Teacher(pipeline, network_name, levels, call, space, conditions_of(pipeline, network))


def fingerprint(parts: Sequence[Any], tokenizers: Sequence[Any] = ()) -> str:
    """SHA-256 of networks of diffusers or transformers: kinds, settings, weights and their dtypes, wherever they lie.

    And of tokenizers: all that they save of themselves.
    """
    digest = hashlib.sha256()
    for part in parts:
        config = part.config.to_dict() if hasattr(part.config, "to_dict") else part.config
        settings = {key: value for key, value in config.items() if not key.startswith("_")}
        digest.update(f"{type(part).__name__} {json.dumps(settings, sort_keys=True, default=str)}".encode())
        for name, weight in sorted(part.state_dict().items()):
            digest.update(f"{name} {weight.dtype}".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    for tokenizer in tokenizers:
        digest.update(f"{type(tokenizer).__name__} {json.dumps(saved(tokenizer), sort_keys=True)}".encode())
    return digest.hexdigest()


def saved(tokenizer: Any) -> dict[str, Any]:
    """The files that a tokenizer saves: their content, without what a call or the place it came from left in them."""
    passing = ("truncation", "padding", "name_or_path", "is_local", "local_files_only")
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {file.relative_to(folder).as_posix(): file for file in Path(folder).rglob("*") if file.is_file()}
        found: dict[str, Any] = {name: file.read_bytes().hex() for name, file in files.items()}
        for name in files.keys() & {"tokenizer.json", "tokenizer_config.json"}:
            content = json.loads(files[name].read_text())
            found[name] = {key: value for key, value in content.items() if key not in passing}
    return found


def load_pipeline(name: str, trust_remote_code: bool, given: dict[str, Any] | None = None) -> Any:
    """The pipeline itself, after a look at its files; ``given``: more for ``from_pretrained``, such as parts of it.

    Raises:
        ConfigError: as ``load_teacher`` does
    """
    options = {"trust_remote_code": trust_remote_code, "use_safetensors": True}
    try:
        folder = find_folder(name, trust_remote_code)
        found = check_files(name, folder, trust_remote_code)
        return DiffusionPipeline.from_pretrained(str(folder), **{**options, **found, **(given or {})})
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        advice = f"; only safetensors are read; {CONVERT.format(name=name)}" if "safetensors" in reason else ""
        advice = advice or ("; set trust_remote_code: true if you trust it" if "trust_remote_code" in reason else "")
        raise ConfigError("teacher", f"{name} could not be loaded as a diffusers pipeline: {reason}{advice}") from error


def find_folder(name: str, trust_remote_code: bool) -> Path:
    """The folder itself, or where a hub id was downloaded to. Raises ConfigError if it is neither."""
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ConfigError("teacher", f"there is no folder {name}", "give a diffusers pipeline's folder or hub id")
    if folder.is_dir():
        return folder
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "use_safetensors": True}
    try:
        return Path(DiffusionPipeline.download(name, **options))
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        try:
            return Path(DiffusionPipeline.download(name, variant=VARIANT, **options))
        except (OSError, ValueError):
            raise error from None


def check_files(name: str, folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """What loading has to be told: the components that are missing, and the variant where there is no other.

    Raises:
        ConfigError: the folder should not be loaded
    """
    if not (folder / "model_index.json").is_file():
        raise ConfigError("teacher", f"{name} is not a diffusers pipeline: it has no model_index.json")
    index = json.loads((folder / "model_index.json").read_text())
    code = remote_code(folder, index)
    if code and not trust_remote_code:
        raise ConfigError(
            "teacher",
            f"{name} would run code of its own, {', '.join(code)}",
            "set trust_remote_code: true if you trust it",
        )
    kind = index["_class_name"]
    if isinstance(kind, str) and kind not in PIPELINES:
        raise ConfigError("teacher", f"{name} is a {kind}", f"supported are {', '.join(PIPELINES)}")
    parts = {key: value for key, value in index.items() if isinstance(value, list) and not key.startswith("_")}
    found: dict[str, Any] = {key: None for key, value in parts.items() if value == [None, None]}
    for part in (folder / key for key in parts if (folder / key).is_dir()):
        pickles = sorted(file.name for file in part.iterdir() if file.suffix in PICKLES)
        if pickles and not any(part.glob("*.safetensors")):
            convert = CONVERT.format(name=name)
            raise ConfigError("teacher", f"{part.name}/{pickles[0]} is a pickle, which can run code", f"{convert}")
        weights = list(part.glob("*.safetensors"))
        if weights and all(f".{VARIANT}" in file.name for file in weights):
            found["variant"] = VARIANT
    return found


def remote_code(folder: Path, index: dict[str, Any]) -> list[str]:
    """The Python files in a pipeline's folder that diffusers would run."""
    named = [f"{key}/{value[0]}.py" for key, value in index.items() if isinstance(value, list) and key[0] != "_"]
    own = index["_class_name"]
    files = [*named, *([f"{own[0]}.py"] if isinstance(own, list) else [])]
    return [file for file in files if (folder / file).is_file()]
