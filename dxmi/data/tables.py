"""Datasets of the Hugging Face library: opening them, and reading one row's image, label or caption."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import Any

import torch

from dxmi.api import Annotations, ConfigError
from dxmi.api.errors import first_line, require
from dxmi.config import DataConfig

# What somebody may take for data; any other dot is part of a hub id, as in me/data.v1.1
FILES = set(".parquet .arrow .csv .json .jsonl .txt .npz .npy .pt .zip .gz .tgz .png .jpg .jpeg .webp".split())


def load_table(data: DataConfig) -> Any:
    """The `datasets.Dataset` behind ``data``, or with ``streaming`` the IterableDataset.

    Raises:
        ConfigError: it cannot be had
    """
    from datasets import load_dataset

    given, split = str(data.path), data.split
    how = files_of(data)
    kind, options = how or (given, {"name": data.subset})
    if how is not None:
        data.refuse("subset", what="files have none")
        if "split" in options:
            data.refuse("split", what="a single file, or shards, have none")
    try:
        return load_dataset(kind, split=options.pop("split", split), streaming=data.streaming, **options)
    except Exception as error:  # datasets raises its own, pyarrow's and fsspec's errors; all mean an unreadable path
        where = "cannot be read" if how else "is neither here nor on the hub"
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # what datasets wraps says more
        raise ConfigError("data.path", f"{given} {where}: {first_line(cause)}") from error


def files_of(data: DataConfig) -> tuple[str, dict[str, Any]] | None:
    """What reads the files of ``data.path`` and its options; None of a hub id.

    Raises:
        ConfigError: it is neither
    """
    given = str(data.path)
    path = Path(given).expanduser()
    if given.endswith(".tar"):
        shards = [given] if "://" in given else sorted(glob(str(path)))
        require(bool(shards), "data.path", f"there are no shards {given}")
        return "webdataset", {"data_files": shards, "split": "train"}
    if path.is_file() and path.suffix == ".parquet":
        return "parquet", {"data_files": str(path), "split": "train"}
    if path.is_dir() and any(path.glob("**/*.parquet")):
        return "parquet", {"data_dir": str(path)}
    if path.is_dir() and any(path.glob("*.tar")):
        return "webdataset", {"data_files": sorted(map(str, path.glob("*.tar"))), "split": "train"}
    if path.is_dir():
        return "imagefolder", {"data_dir": str(path)}
    if not path.exists() and (path.suffix.lower() in FILES or given.startswith((".", "/", "~"))):
        raise ConfigError("data.path", f"there is no {given}")
    if path.exists() or path.suffix == ".parquet" or given.startswith((".", "/", "~")) or given.count("/") > 1:
        raise ConfigError("data.path", f"{given} is no Parquet file, folder of images or WebDataset shards (.tar)")
    return None


def holds_lists(table: Any, column: str) -> bool:
    """Whether a column of a `datasets.Dataset` holds lists of numbers."""
    kind = getattr(getattr((table.features or {}).get(column), "feature", None), "dtype", "")
    return str(kind).startswith(("float", "int", "uint"))


def undecoded(table: Any, data: DataConfig) -> Any:
    """The table with its column of images as files, ``{bytes, path}``, not decoded yet.

    Raises:
        ConfigError: the column is missing or holds no images
    """
    from datasets import Image as ImageFeature

    column = has_column(table, data, "column")
    feature = (table.features or {}).get(column)
    raw = isinstance(feature, dict) and "bytes" in feature
    if not (raw or isinstance(feature, ImageFeature) or getattr(feature, "dtype", None) == "binary"):
        raise ConfigError("data.column", f"'{column}' of {data.path} holds no images or lists of numbers but {feature}")
    return table.cast_column(column, ImageFeature(decode=False)).with_format(None)


def has_column(table: Any, data: DataConfig, key: str) -> str:
    """The name of the column that ``data.<key>`` names; raises ConfigError if there is none."""
    column, known = str(getattr(data, key)), table.column_names or []
    require(column in known, f"data.{key}", f"{data.path} has no '{column}'", f"it has {', '.join(known)}")
    return column


def about_key(data: DataConfig) -> str | None:
    """The option that names what is known of the items: label, caption or None."""
    return "label" if data.label is not None else "caption" if data.caption is not None else None


def load_about(table: Any, data: DataConfig) -> Annotations:
    """Labels (N,) long or N captions of a `datasets.Dataset`.

    Raises:
        ConfigError: the column is missing, or a row has no label from 0 on or no caption
    """
    key = about_key(data)
    return None if key is None else read_about(table.with_format(None)[has_column(table, data, key)], data)


def read_about(values: Iterable[Any], data: DataConfig, first: int = 0, name: str = "row") -> Annotations:
    """Rows ``first``, ``first + 1``, … of the column of labels -> (N,) long, or of that of captions -> N of them.

    Raises:
        ConfigError: one of them is no label or caption
    """
    known: list[Any] = []
    for row, value in enumerate(values, start=first):
        if data.label is not None:
            fits, wanted = isinstance(value, int) and not isinstance(value, bool) and value >= 0, "integer from 0 on"
        else:
            fits, wanted = isinstance(value, str) and value.strip() != "", "text"
        if not fits:
            key, shown = about_key(data), repr(value)[:40]
            where = f"{name} {row} of '{getattr(data, str(key))}'"
            raise ConfigError(f"data.{key}", f"{where} has {shown}, which is no {wanted}")
        known.append(value)
    return torch.tensor(known, dtype=torch.long) if data.label is not None else known
