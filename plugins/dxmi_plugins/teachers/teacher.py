"""A pretrained diffusers pipeline as a teacher: all that its own config tells of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dxmi.api import Annotations, Conditions, ConfigError, Levels, NetworkCall, Space, TeacherFamily
from dxmi.api.errors import first_line
from dxmi.api.fingerprint import fingerprint
from dxmi.pipelines import PipelineFiles, download, families, family_of, look, pipeline_names
from dxmi_plugins.teachers.networks import in_precision
from dxmi_plugins.teachers.spaces import Pixels

CONVERT = (
    "if you trust it: python -c \"from diffusers import DiffusionPipeline as P; P.from_pretrained('{name}', "
    "use_safetensors=False).save_pretrained('converted')\""
)


@dataclass(frozen=True)
class Teacher:
    """A pipeline and how to use it. Copies share it: what students change is their own copy of the network."""

    pipeline: Any
    family: TeacherFamily
    levels: Levels
    call: NetworkCall
    space: Space
    conditions: Conditions

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def network_name(self) -> str:
        """Of the network among the pipeline's components: unet or transformer."""
        return self.family.part

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

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError if images (C,H,W) are not what it draws."""
        expected = self.space.image_shape(self.shape)
        if tuple(shape) != tuple(expected):
            fix = f"set data.size: {expected[-1]}" if shape[0] == expected[0] else "use other data or another teacher"
            raise ConfigError("data", f"images are {tuple(shape)}, the teacher draws {tuple(expected)} (C,H,W)", fix)

    def fingerprint(self) -> str | None:
        """SHA-256 of the frozen parts that ``encode`` runs: settings, weights, dtypes; None without any."""
        parts = [*self.space.parts, *self.conditions.parts]
        parts = [*parts, *self.conditions.tokenizers] if parts else []
        return fingerprint({str(i): part for i, part in enumerate(parts)}) if parts else None

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
    shared = {} if like is None else dict(like.pipeline.components)
    for key in ("scheduler", "" if like is None else like.network_name):
        shared.pop(key, None)
    dtype = getattr(torch, precision)
    kind, pipeline = load_pipeline(name, trust_remote_code, dtype=dtype, **shared)
    network: Any = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    if network is None or getattr(pipeline, "scheduler", None) is None:
        supported = pipeline_names(families().values())
        raise ConfigError("teacher", f"{name} has no network and scheduler", f"supported are {supported}")
    family = family_of(name, kind, pipeline)
    space, call, levels = family.space(pipeline), family.call(pipeline), family.levels(pipeline)
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
    return Teacher(pipeline, family, levels, call, space, family.conditions(pipeline))


def load_pipeline(name: str, trust_remote_code: bool, **options: Any) -> tuple[str | None, Any]:
    """The name of a pipeline's class, None where it brings that, and the pipeline, after a look at its files.

    Args:
        name: folder or hub id
        trust_remote_code: whether Python files of the pipeline may run
        options: more for ``from_pretrained``, such as parts of it

    Raises:
        ConfigError: as ``load_teacher`` does
    """
    try:
        files = check_files(name, find_folder(name, trust_remote_code), trust_remote_code)
        return files.kind, files.load(trust_remote_code, **options)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        reason = first_line(error)
        cure = f"only safetensors are read; {CONVERT.format(name=name)}" if "safetensors" in reason else ""
        cure = cure or ("set trust_remote_code: true if you trust it" if "trust_remote_code" in reason else "")
        raise ConfigError("teacher", f"{name} could not be loaded as a diffusers pipeline: {reason}", cure) from error


def find_folder(name: str, trust_remote_code: bool) -> Path:
    """The folder itself, or where a hub id was downloaded to.

    Raises:
        ConfigError: it is neither
        OSError, ValueError: the hub has it not, or is out of reach
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ConfigError("teacher", f"there is no folder {name}", "give a diffusers pipeline's folder or hub id")
    return folder if folder.is_dir() else download(name, trust_remote_code)


def check_files(name: str, folder: Path, trust_remote_code: bool) -> PipelineFiles:
    """The files of a pipeline that may be loaded.

    Raises:
        ConfigError: it may not, or is of a class that no family takes
        OSError, ValueError, KeyError: its model_index.json is damaged
    """
    if not (folder / "model_index.json").is_file():
        raise ConfigError("teacher", f"{name} is not a diffusers pipeline: it has no model_index.json")
    files, known = look(folder), families().values()
    if files.code and not trust_remote_code:
        code = ", ".join(files.code)
        raise ConfigError(
            "teacher", f"{name} would run code of its own, {code}", "set trust_remote_code: true if you trust it"
        )
    if files.kind is not None and not any(files.kind in family.pipelines for family in known):
        raise ConfigError("teacher", f"{name} is a {files.kind}", f"supported are {pipeline_names(known)}")
    if files.pickle is not None:
        raise ConfigError("teacher", f"{files.pickle} is a pickle, which can run code", CONVERT.format(name=name))
    return files
