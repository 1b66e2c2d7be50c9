"""A pipeline to the Hugging Face hub (``dxmi push``)."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from dxmi.api import ConfigError
from dxmi.api.errors import first_line, require

PREVIEW = 12  # lines of the card


KEPT = (".json", ".md", ".txt", ".model", ".py", ".safetensors")  # of what pipelines are made of


def product(source: Path) -> Path:
    """The pipeline in a run's folder, or the folder itself. Raises ConfigError if there is none."""
    require(source.is_dir(), source, "there is no such folder", "give a run or a pipeline's folder")
    folder = source / "pipeline" if (source / "run.yaml").exists() else source
    if not (folder / "model_index.json").is_file():
        raise ConfigError(source, f"holds no pipeline (no {folder.name}/model_index.json)", "finish the run first")
    require((folder / "README.md").is_file(), source, "its pipeline has no card (README.md)", "finish the run first")
    return folder


def files(folder: Path) -> list[Path]:
    """What would go, in order, relative to the folder: the files of the pipeline's parts, its card, adapters."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in KEPT)
    relative = sorted(path.relative_to(folder) for path in found)
    return [path for path in relative if not any(part.startswith((".", "__")) for part in path.parts)]


def push(source: Path, repo: str, private: bool, upload: bool) -> None:
    """Print what goes to the hub and, with ``upload``, send it there.

    Raises:
        ConfigError: there is no pipeline, or ``repo`` is no name of a repository
        OSError: the hub cannot be reached or refuses
    """
    folder = product(source)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError("repo-id", f"{first_line(error)}") from error
    found = files(folder)
    print(f"{'uploading' if upload else 'would upload'} to {repo} ({'private' if private else 'public'}):")
    for path in found:
        print(f"  {size((folder / path).stat().st_size):>10}  {path.as_posix()}")
    print("the card begins:")
    for line in (folder / "README.md").read_text().splitlines()[:PREVIEW]:
        print(f"  {line}")
    if not upload:
        print("nothing was sent; give --yes to send it")
        return
    try:
        api = HfApi()
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="model",
            folder_path=folder,
            allow_patterns=[path.as_posix() for path in found],
            commit_message="dxmi push",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise OSError(f"push: {repo} was not uploaded: {first_line(error)}") from error
    print(commit)


def size(count: int) -> str:
    """Bytes for people."""
    number, units = float(count), ["B", "kB", "MB", "GB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}"
