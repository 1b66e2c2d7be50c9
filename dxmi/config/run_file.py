"""``run.yaml``, the config in a run's folder: every key with its value, and the number of its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dxmi.api.errors import ConfigError
from dxmi.api.files import whole_file
from dxmi.config.yaml_files import read_yaml

NAME = "run.yaml"
FORMAT = 1
"""of the folders that this version writes; folders without a number are of format 1"""


def write_run_file(folder: Path, resolved: dict[str, Any]) -> None:
    """Write the config of a run, as ``Checked.resolved`` has it."""
    with whole_file(folder / NAME) as draft:
        draft.write_text(yaml.safe_dump({"format": FORMAT, **resolved}, sort_keys=False))


def read_run_file(folder: Path) -> tuple[int, dict[str, Any]]:
    """The number of the format, and the config.

    Raises:
        ConfigError: there is no such file, it is no YAML mapping, or a newer dxmi wrote it
    """
    return without_format(read_yaml(folder / NAME), folder / NAME)


def without_format(config: dict[str, Any], place: Path) -> tuple[int, dict[str, Any]]:
    """The same of a config that was read from ``place``.

    Raises:
        ConfigError: a newer dxmi wrote it
    """
    number = config.get("format", 1)
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise ConfigError(place, f"its format is {number}, and this dxmi reads {FORMAT}", "use a newer dxmi")
    return number, {key: value for key, value in config.items() if key != "format"}
