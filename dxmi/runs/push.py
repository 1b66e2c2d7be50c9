"""A pipeline to the Hugging Face hub (``dxmi push``)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from dxmi.api import ConfigError
from dxmi.api.errors import first_line, require
from dxmi.runs.folder import Run

KEPT = (".json", ".md", ".txt", ".model", ".py", ".safetensors")  # of what pipelines are made of


class Product(NamedTuple):
    """What goes to the hub."""

    folder: Path
    files: list[Path]
    """relative to the folder, in order: the files of the pipeline's parts, its card, adapters"""

    @property
    def card(self) -> str:
        """The text of its card."""
        return (self.folder / "README.md").read_text()


def product(source: str | Path | Run, repo: str) -> Product:
    """The pipeline of a run, or in the folder itself, as it would go to ``repo``.

    Raises:
        ConfigError: there is no pipeline with a card, or ``repo`` is no name of a repository
    """
    folder, run = Path(source), Run.find(source)
    require(folder.is_dir(), folder, "there is no such folder", "give a run or a pipeline's folder")
    folder = folder if run is None else run.pipeline_folder
    if not (folder / "model_index.json").is_file():
        where = f"no {folder.name}/model_index.json"
        raise ConfigError(Path(source), f"holds no pipeline ({where})", "finish the run first")
    carded = (folder / "README.md").is_file()
    require(carded, Path(source), "its pipeline has no card (README.md)", "finish the run first")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError("repo", first_line(error)) from error
    kept = (path for path in folder.rglob("*") if path.is_file() and path.suffix in KEPT)
    relative = sorted(path.relative_to(folder) for path in kept)
    hidden = (".", "__")
    return Product(folder, [path for path in relative if not any(part.startswith(hidden) for part in path.parts)])


def push(source: str | Path | Run, repo: str, *, private: bool = False) -> str:
    """Send a pipeline and its card to the Hugging Face hub; returns the address of the commit.

    Args:
        source: a run, or the folder of a pipeline
        repo: ``owner/name``; it is created if it is not there
        private: whether a new repository is private

    Raises:
        ConfigError: as ``product``
        OSError: the hub cannot be reached or refuses
    """
    ready = product(source, repo)
    try:
        api = HfApi()
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="model",
            folder_path=ready.folder,
            allow_patterns=[path.as_posix() for path in ready.files],
            commit_message="dxmi push",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise OSError(f"push: {repo} was not uploaded: {first_line(error)}") from error
    return str(commit)
