"""Stored images for evaluation: the reference, the floor, and what is measured in place of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dxmi.api import ConfigError
from dxmi.api.errors import require
from dxmi.config import Checked, DataConfig
from dxmi.data import Images, load_data, load_table

Given = str | Path | Mapping[str, Any] | Tensor
"""A path or hub id, alone or with options of ``Data`` as {path: ..., split: test}, or images uint8 (N,C,H,W)"""


OPTIONS = ("path", "column", "label", "split", "subset", "size")


def path_of(given: Any) -> Any:
    """The path where ``given`` has options beside it."""
    return given.get("path") if isinstance(given, Mapping) else given


def images(given: Given, key: str, column: str = "image", label: str | None = None, strict: bool = False) -> Images:
    """All of them, decoded into memory in eight bits.

    Args:
        given: what they are
        key: what messages call it: the parameter that it came by
        column: of the images, unless ``given`` says otherwise
        label: column of labels
        strict: whether that column has to be there; without it there are no labels

    Raises:
        ConfigError: they cannot be read, or differ in size; an option's key is ``KEY.OPTION``
    """
    if isinstance(given, Tensor):
        well = given.dtype == torch.uint8 and given.ndim == 4 and given.numel() > 0
        require(well, key, f"a tensor of images is uint8 (N,C,H,W), this one {given.dtype} {tuple(given.shape)}")
        return Images(given, "tensor")
    options = {"column": column, **(given if isinstance(given, Mapping) else {"path": str(given)})}
    for option in options:
        require(option in OPTIONS, f"{key}.{option}", "no such option", f"there are {', '.join(OPTIONS)}")
    require(isinstance(options.get("path"), str | Path), key, "give a path or a hub id")
    options["path"] = str(options["path"])
    try:
        data = Checked(DataConfig, options).build()
        table = load_table(data)
        if label is not None and data.label is None and (strict or label in table.column_names):
            data = replace(data, label=label)
        stored = load_data(data, table)
    except ConfigError as error:
        raise error.moved("data.path", key).moved("data", key) from error
    if not isinstance(stored, Images):
        raise ConfigError(f"{key}.column", f"'{data.column}' holds no images", "name the column that does")
    return stored
