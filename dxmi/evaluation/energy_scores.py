"""``dxmi score``: energies of stored images or vectors, and how well they rank labelled ones."""

from __future__ import annotations

from reprlib import repr as shortened
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from dxmi.api import ConfigError, Evaluator, Labelled
from dxmi.config.checked import build_plugin
from dxmi.config.data import DataConfig
from dxmi.data.items import Items
from dxmi.data.load import load_data
from dxmi.data.tables import load_table
from dxmi.evaluation.measure import measure
from dxmi.runs.energy import energy_folder, load_energy_and_steps


def score(source: str, data: DataConfig, table: Any | None = None) -> list[float]:
    """The energy of every image or vector, in the dataset's order: low means like the data it learned.

    ``table`` is what ``load_table`` gave, if it is at hand.

    Raises:
        ConfigError: there is no such energy or data, or the items do not fit the energy
    """
    folder = energy_folder(source)
    (energy, steps), items = load_energy_and_steps(folder), load_data(data, table)
    assert isinstance(items, Items)  # neither draws nor a stream
    device = Accelerator().device
    energy.to(device)
    try:
        with torch.no_grad():
            parts = (items[part].to(device) for part in torch.split(torch.arange(len(items)), 256))
            return [e for x in parts for e in energy(x, torch.full((len(x),), steps, device=device)).tolist()]
    except (RuntimeError, AssertionError) as error:  # lazy layers assert
        raise ConfigError(str(data.path), f"items {items.event_shape} do not fit the energy in {folder}") from error


def score_labelled(source: str, data: DataConfig, labels: str, classes: str | None = None) -> dict[str, Any]:
    """The energies, and the AUROC of them as anomaly scores: ``{energies, metrics, evaluator}``.

    ``labels`` names the column with 0 for good and 1 for defect, ``classes`` one with the kind of thing each item is:
    AUROC is then that of each class (``det/CLASS``) and their mean (``det``).

    Raises:
        ConfigError: as ``score``; a column is missing or a row of it has nothing, labels are not 0 and 1, or all of a
            class are alike
        FloatingPointError: an energy is not finite
    """
    table = load_table(data)
    given = read_labels(table, labels, str(data.path))
    kinds = None if classes is None else read_classes(table, classes, str(data.path))
    energies = score(source, data, table)
    evaluator = build_plugin(Evaluator, {"name": "anomaly"})  # type: ignore[type-abstract]
    scores = torch.tensor(energies, dtype=torch.float64)
    metrics = measure([evaluator], Labelled(scores, given, kinds), lambda n: scores[:n])["metrics"]
    return {"energies": energies, "metrics": metrics, "evaluator": evaluator.stamp()}


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
