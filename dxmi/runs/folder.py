"""A run's folder: what it is, and what lies in it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from dxmi.api import ConfigError, Draw, Energy
from dxmi.config import Checked, TrainConfig, build_plugin
from dxmi.config.run_file import NAME, read_run_file
from dxmi.pipelines import PipelineDraw, load_pipeline, what_else
from dxmi.runs.energy import load_energy_folder
from dxmi.runs.finished import Finished, load_density, load_learned

Kind = Literal["training", "density", "images", "vectors", "chains", "unfinished"]
GO_ON = "go on with it by 'dxmi train ... --resume', or resume=True of dxmi.train"


class Run:
    """A run's folder, as ``dxmi.train`` or ``dxmi sample CONFIG`` leaves it. It is taken wherever a folder is.

    ``kind`` says what it is: training left a pipeline; images and vectors learned from such data and left none;
    density learned to sample a known density; chains are those of ``dxmi sample CONFIG``; unfinished has no products
    yet.

    Args:
        folder: with ``run.yaml`` in it

    Raises:
        ConfigError: the folder is no run; the message says what else it is
    """

    def __init__(self, folder: str | Path | Run):
        self.folder = Path(folder).expanduser()
        if not (self.folder / NAME).is_file():
            raise ConfigError(self.folder, what_folder_is(self.folder), "give the folder that 'dxmi train' left")
        self.format, self.config = read_run_file(self.folder)

    @classmethod
    def find(cls, folder: Any) -> Run | None:
        """The run in a folder; None of what is no path of one."""
        named = isinstance(folder, str | Path | Run)
        return cls(folder) if named and (Path(folder).expanduser() / NAME).is_file() else None

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, kind={self.kind!r})"

    @cached_property
    def kind(self) -> Kind:
        """What the folder is; see above."""
        if "chains" in self.config:
            return "chains"
        if self.pipeline_folder.is_dir():
            return "training"
        if self.config.get("data") is None:
            return "density" if (self.folder / "sampler").is_dir() else "unfinished"
        return "unfinished" if self.shape is None else "images" if len(self.shape) == 3 else "vectors"

    @cached_property
    def shape(self) -> tuple[int, ...] | None:
        """S of the data that the energy was learned from; None where it was learned from none, or not yet."""
        try:
            return tuple(json.loads((self.folder / "energy" / "config.json").read_text())["shape"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def has_images(self) -> bool:
        """Whether what it draws are images."""
        return self.kind in ("training", "images")

    @property
    def pipeline_folder(self) -> Path:
        """Where the pipeline lies, if there is one."""
        return self.folder / "pipeline"

    @property
    def prompts(self) -> list[str]:
        """What its samples were drawn at; empty where it draws from no text."""
        sampler = self.config.get("sampler")
        return sampler.get("prompts") or [] if isinstance(sampler, dict) else []

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """``evaluation.json`` as it stands, ``{rows, stamp}``; None where nothing was measured."""
        file = self.folder / "evaluation.json"
        try:
            return json.loads(file.read_text()) if file.is_file() else None  # type: ignore[no-any-return]
        except ValueError as error:
            raise ConfigError(file, "is damaged: it is no JSON", "evaluate the run again") from error

    def checked(self) -> Checked[TrainConfig]:
        """Its config with every default. Raises ConfigError: a plugin or key of it is not there any more."""
        return Checked(TrainConfig, self.config)

    def pipeline(self) -> Any:
        """The diffusers pipeline that it left.

        Raises:
            ConfigError: it left none
        """
        if self.kind != "training":
            self.require_finished()
            raise ConfigError(self.folder, f"is a run of kind {self.kind} and left no pipeline", "draw with Run.draw()")
        return load_pipeline(str(self.pipeline_folder))

    def energy(self) -> Energy:
        """The energy that was learned, or the known density that it samples: ``energy(x (B,*S)) -> (B,)``.

        Raises:
            ConfigError: there is none yet
        """
        if self.kind == "density":
            energy: Energy = build_plugin(Energy, self.config["energy"], "energy")  # type: ignore[type-abstract]
            return energy.eval()
        self.require_finished()
        return load_energy_folder(self.folder / "energy")[0]

    def draw(self) -> Draw:
        """What was learned, as something that draws: ``draw(n, steps, generator) -> (n,*S)``.

        Raises:
            ConfigError: there is nothing to draw from
        """
        if self.kind != "training":
            return self.finished().draw
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return PipelineDraw(self.pipeline(), place, self.prompts, name=str(self.folder))

    def finished(self) -> Finished:
        """The players of a run that left no pipeline, as they are in the end.

        Raises:
            ConfigError: they are not there, or carry nothing from where the sampler starts
        """
        self.require_finished()
        load = load_density if self.kind == "density" else load_learned
        return load(self.folder, self.config)

    def require_finished(self) -> None:
        """Raise ConfigError for a run without products, and for chains, which learn nothing."""
        if self.kind == "unfinished":
            raise ConfigError(self.folder, "holds no finished run", GO_ON)
        if self.kind == "chains":
            raise ConfigError(self.folder, "holds chains, whose states are in samples.safetensors", "give a run")


def holds_network(folder: Path) -> bool:
    """Whether ``dxmi pretrain`` or diffusers has left a network in a folder."""
    return any((folder / name).exists() for name in ("config.json", "model_index.json"))


def energy_folder(source: str | Path | Run) -> Path:
    """``source``, or the energy in it where it is a run."""
    return Path(source) / "energy" if Run.find(source) else Path(source)


def load_energy(source: str | Path | Run) -> Energy:
    """The energy of a run, or the energy (or value) in a folder that ``save_energy`` wrote.

    Returns:
        ``energy(x (B,*S)) -> (B,)``, in evaluation mode; low means like the data

    Raises:
        ConfigError: there is none, or its plugin is not installed
    """
    run = Run.find(source)
    return load_energy_folder(Path(source))[0] if run is None else run.energy()


def what_folder_is(folder: Path) -> str:
    """What a folder that is no run is, in words."""
    if not folder.exists():
        return "there is no such folder"
    if (folder / "model_index.json").exists():
        return "is a diffusers pipeline, no run"
    if (folder / "config.json").exists():
        return what_else(folder)
    return f"holds no run (there is no {NAME})"
