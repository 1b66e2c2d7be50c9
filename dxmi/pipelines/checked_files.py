"""What a pipeline's folder holds, looked at before anything of it is loaded: pickles and code of its own.

Everything here that loads a pipeline asks this file first. Each tells its refusals in its own words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from diffusers import DiffusionPipeline

from dxmi.api.errors import first_line
from dxmi.api.fingerprint import file_sha256
from dxmi.config import plugins

VARIANT = "fp16"
"""the one that pipelines come in"""

PICKLES = (".bin", ".ckpt", ".pt", ".pth")

RELEASED = "released.json"
"""beside the module of an entry point of ``dxmi.diffusers``: by file, SHA-256 of all that was ever released of it"""


@dataclass(frozen=True)
class PipelineFiles:
    """A pipeline's folder."""

    folder: Path
    index: dict[str, Any]
    """its model_index.json"""
    code: list[str]
    """the Python files that diffusers would run"""
    pickle: str | None
    """weights that there are as a pickle alone, such as unet/x.bin"""
    options: dict[str, Any]
    """what loading has to be told: the parts that are missing, and the variant where there is no other"""

    @property
    def kind(self) -> str | None:
        """The name of the pipeline's class; None where it brings that itself."""
        kind = self.index["_class_name"]
        return kind if isinstance(kind, str) else None

    def load(self, trusted: bool, **options: Any) -> Any:
        """The pipeline, from safetensors alone.

        Args:
            trusted: whether its code may run
            options: more for ``from_pretrained``, such as parts that are there already

        Raises:
            OSError, ValueError, KeyError, ImportError: a file is missing or damaged, or its library is
        """
        told = {"trust_remote_code": trusted, "use_safetensors": True, **self.options, **options}
        try:
            return DiffusionPipeline.from_pretrained(str(self.folder), **told)
        except (IndexError, TypeError) as error:  # as diffusers has it where a part is no [module, class]
            raise ValueError(f"model_index.json does not describe its parts: {first_line(error)}") from error


def download(name: str, trusted: bool) -> Path:
    """Where the pipeline with this hub id lies after its download: as float32, or as fp16 if there is nothing else.

    Raises:
        OSError, ValueError: it cannot be had
    """
    options: dict[str, Any] = {"trust_remote_code": trusted, "use_safetensors": True}
    try:
        return Path(DiffusionPipeline.download(name, **options))
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        try:
            return Path(DiffusionPipeline.download(name, variant=VARIANT, **options))
        except (OSError, ValueError):
            raise error from None


def look(folder: Path) -> PipelineFiles:
    """What lies in the folder of a pipeline; nothing is loaded.

    Raises:
        OSError, ValueError, KeyError: its model_index.json is missing or damaged
    """
    index = read_index(folder / "model_index.json")
    parts = parts_of(index)
    options: dict[str, Any] = {key: None for key, value in parts.items() if value == [None, None]}
    pickle = None
    for part in (folder / key for key in parts if (folder / key).is_dir()):
        pickles = sorted(file.name for file in part.iterdir() if file.suffix in PICKLES)
        weights = list(part.glob("*.safetensors"))
        if pickles and not weights:
            pickle = pickle or f"{part.name}/{pickles[0]}"
        if weights and all(f".{VARIANT}" in file.name for file in weights):
            options["variant"] = VARIANT
    return PipelineFiles(folder, index, brought_code(folder, index), pickle, options)


def read_index(file: Path) -> dict[str, Any]:
    """The content of a model_index.json.

    Raises:
        OSError, ValueError: it is missing or damaged, or names a module by a path, which may lead out of the folder
    """
    content = json.loads(file.read_text())
    index: dict[str, Any] = content if isinstance(content, dict) else {}
    own = index.get("_class_name")
    if not isinstance(own, str) and not is_class(own):
        raise ValueError(f"{file.name} is damaged: it names no class of a pipeline")
    for module, _ in [*parts_of(index).values(), *filter(is_class, [own])]:
        if module is not None and not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{file.name} names '{module}', which is no module of the folder or of Python")
    return index


def parts_of(index: dict[str, Any]) -> dict[str, list[str | None]]:
    """The parts of a pipeline: [module, class] by name, or [None, None] where one is missing."""
    return {key: value for key, value in index.items() if is_class(value) and not key.startswith("_")}


def is_class(value: Any) -> TypeGuard[list[str | None]]:
    """Whether it is [module, class]."""
    return isinstance(value, list) and len(value) == 2 and all(v is None or isinstance(v, str) for v in value)


def brought_code(folder: Path, index: dict[str, Any]) -> list[str]:
    """The Python files in a pipeline's folder that diffusers would run."""
    named = [f"{key}/{value[0]}.py" for key, value in parts_of(index).items()]
    own = index["_class_name"]
    files = [*named, *([f"{own[0]}.py"] if isinstance(own, list) else [])]
    return [file for file in files if (folder / file).is_file()]


def is_own_code(folder: Path) -> bool:
    """Whether a pipeline's folder brings code, and all of it is of ``dxmi.diffusers``: as installed, or as released."""
    known: set[str] = set()
    for plugin in plugins.installed("dxmi.diffusers").values():
        spec = plugins.find_file(plugin.claims[0].module)
        if spec is not None and spec.origin is not None:
            known |= digests(Path(spec.origin))
    brought = {file_sha256(file) for file in folder.rglob("*.py")}
    return bool(brought) and brought <= known


def digests(module: Path) -> set[str]:
    """SHA-256 of a module's file, and of its releases where the file ``released.json`` beside it lists them."""
    listed = module.with_name(RELEASED)
    released = json.loads(listed.read_text()) if listed.is_file() else {}
    return {file_sha256(module), *released.get(module.name, [])}
