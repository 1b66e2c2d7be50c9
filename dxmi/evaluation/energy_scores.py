"""``dxmi score``: energies of stored images or vectors, and how well they rank labelled ones."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from dxmi.api import ConfigError, Evaluator, Labelled
from dxmi.api.errors import require
from dxmi.config import DataConfig, build_plugin
from dxmi.data import Items, load_data, load_table
from dxmi.evaluation.measure import measure
from dxmi.runs.energy import load_energy_folder
from dxmi.runs.folder import Run, energy_folder


class Scores(NamedTuple):
    """The energy of every item of a dataset, in its order."""

    energies: Tensor
    """(N,) float64 on the CPU; low means like the data that the energy learned"""
    metrics: dict[str, float]
    """AUROC of the energies as anomaly scores, ``det`` and of each class ``det/CLASS``; empty without labels"""
    evaluator: dict[str, Any]
    """what made the metrics; empty without labels"""


def score(
    source: str | Path | Run,
    data: str | Path | DataConfig,
    *,
    column: str = "image",
    labels: str | None = None,
    classes: str | None = None,
) -> Scores:
    """Energies of stored images or vectors under a run's energy and, with labels, how well they rank them.

    Args:
        source: a run, or an energy's folder
        data: Parquet file, folder of images or hub id; or all keys of ``data``
        column: of images or lists of numbers
        labels: column of 0 for good and 1 for defect
        classes: column of the kind of thing each item is: AUROC is then that of each, and their mean

    Raises:
        ConfigError: there is no such energy or data, or the items do not fit the energy; a column is missing or a row
            of it has nothing, labels are not 0 and 1, or all of a class are alike
        FloatingPointError: with labels, an energy is not finite
    """
    require(classes is None or labels is not None, "classes", "AUROC needs labels", "give labels too")
    chosen = data if isinstance(data, DataConfig) else DataConfig(path=str(data), column=column)
    try:
        table = load_table(chosen)
        given = None if labels is None else read_labels(table, labels, str(chosen.path))
        kinds = None if classes is None else read_classes(table, classes, str(chosen.path))
        energies = energies_of(energy_folder(source), chosen, table)
    except ConfigError as error:
        raise error.moved("data.column", "column").moved("data.path", "data") from error
    if given is None:
        return Scores(energies, {}, {})
    evaluator = build_plugin(Evaluator, {"name": "anomaly"})  # type: ignore[type-abstract]
    metrics = measure([evaluator], Labelled(energies, given, kinds), lambda n: energies[:n])["metrics"]
    return Scores(energies, metrics, evaluator.stamp())


def energies_of(folder: Path, data: DataConfig, table: Any) -> Tensor:
    """Energies (N,) float64 of the items of ``data`` under the energy in ``folder``.

    Raises:
        ConfigError: there is none, or the items do not fit it
    """
    (energy, steps), items = load_energy_folder(folder), load_data(data, table)
    assert isinstance(items, Items)  # neither draws nor a stream
    device = Accelerator().device
    energy.to(device)
    try:
        with torch.no_grad():
            parts = (items[part].to(device) for part in torch.split(torch.arange(len(items)), 256))
            energies = [energy(x, torch.full((len(x),), steps, device=device)).double().cpu() for x in parts]
        return torch.cat(energies)
    except (RuntimeError, AssertionError) as error:  # lazy layers assert
        raise ConfigError(
            Path(str(data.path)), f"items {items.event_shape} do not fit the energy in {folder}"
        ) from error


def column(table: Any, key: str, name: str, path: str) -> list[Any]:
    """A column of a `datasets.Dataset`; raises ConfigError that names the option ``key`` if there is none."""
    if name not in table.column_names:
        raise ConfigError(key, f"{path} has no column '{name}'", f"it has {', '.join(table.column_names)}")
    return list(table.with_format(None)[name])


def read_labels(table: Any, name: str, path: str) -> Tensor:
    """A column of 0 and 1, or of bool, (N,); raises ConfigError if it is none."""
    values = column(table, "labels", name, path)
    for row, value in enumerate(values):
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise ConfigError(
                "labels", f"row {row} of '{name}' is {shortened(value)}", "they are 0 for good and 1 for defect"
            )
    return torch.tensor(values, dtype=torch.long)


def read_classes(table: Any, name: str, path: str) -> list[str]:
    """A column of names, whole numbers or bools as names (N); raises ConfigError if a row has none."""
    values, names = column(table, "classes", name, path), getattr(table.features[name], "names", None)
    for row, value in enumerate(values):
        # a column of numbers that stand for names has -1 where there is none
        known = isinstance(value, (str, bool, int)) if names is None else value in range(len(names))
        if not known:
            raise ConfigError(
                "classes", f"row {row} of '{name}' is {shortened(value)}", "give each a name or a whole number"
            )
    return [str(value) if names is None else names[value] for value in values]
