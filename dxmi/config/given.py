"""From what a caller of ``dxmi.train`` and the like gives to a checked config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dxmi.api.errors import ConfigError, require
from dxmi.config.checked import Checked
from dxmi.config.run_file import without_format
from dxmi.config.yaml_files import absolute, put, read_yaml

T = TypeVar("T")
Given = str | Path | Mapping[str, Any]
"""A YAML file, or the same as a mapping, in which strings that start with ./ are relative to the working directory"""


def check_given(kind: type[T], config: Given | Checked[T], overrides: Mapping[str, Any] | None = None) -> Checked[T]:
    """The config with ``overrides``, as ``{"sampler.scheduler.steps": 2}``, laid over it, checked.

    Raises:
        ConfigError: the file cannot be read, or a key does not exist or has the wrong type
    """
    if isinstance(config, Checked):
        require(not overrides, "overrides", "this config is checked already", "give a file or a mapping")
        return config
    if isinstance(config, str | Path):
        _, values = without_format(read_yaml(config), Path(config))
    else:
        mapping = isinstance(config, Mapping)
        require(mapping, "config", f"it is a {type(config).__name__}", "give a YAML file or a mapping of its keys")
        _, values = without_format(absolute(copy.deepcopy(dict(config)), Path.cwd()), Path("config"))
    for key, value in (overrides or {}).items():
        put(values, key.split("."), absolute(value, Path.cwd()))
    return Checked(kind, values)


def default_out(config: Given | Checked[Any]) -> Path:
    """``runs/<name of the config>``. Raises ConfigError for a config that is no file."""
    if isinstance(config, str | Path):
        return Path("runs") / Path(config).stem
    raise ConfigError("out", "a config that is no file has no name", "give a folder")
