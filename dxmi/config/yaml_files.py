"""YAML files of options, overrides laid over them, and what differs between two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dxmi.api import ConfigError


def read_yaml(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """A YAML file with ``--key.sub VALUE`` overrides laid over it.

    Strings that start with ``./`` or ``../`` become absolute paths: in the file relative to it, in overrides to the
    working directory.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or an override is malformed
    """
    try:
        content = yaml.load(Path(path).read_text(), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(path, f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(path, "is not a YAML mapping of keys to values")
    config: dict[str, Any] = absolute(content, Path(path).resolve().parent)
    overlay(config, overrides or [])
    return config


def overlay(config: dict[str, Any], overrides: list[str]) -> None:
    """Lay ``--key.sub VALUE`` overrides over a config.

    Raises:
        ConfigError: one is malformed
    """
    given = iter(overrides)
    for key in given:
        key, equals, value = key.partition("=")
        value = value if equals else next(given, "")
        if not key.startswith("--") or not (equals or value):
            raise ConfigError(key, "give overrides as --key.sub VALUE")
        try:
            parsed = yaml.load(value, Loader)
        except yaml.YAMLError:
            parsed = value
        put(config, key[2:].replace("-", "_").split("."), absolute(parsed, Path.cwd()))


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.1 as PyYAML has it, but ``1e-4`` is a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def absolute(value: Any, folder: Path) -> Any:
    """``value`` with every string that starts with ./ or ../ resolved against ``folder``."""
    if isinstance(value, dict):
        return {k: absolute(v, folder) for k, v in value.items()}
    if isinstance(value, list):
        return [absolute(v, folder) for v in value]
    return str((folder / value).resolve()) if isinstance(value, str) and value.startswith(("./", "../")) else value


def put(config: Any, keys: list[str], value: Any, place: str = "") -> None:
    """Set ``config[a][b][c]``; a plugin given by its bare name becomes a mapping, a list is indexed by number.

    Args:
        config: mappings and lists, changed in place
        keys: the path from there
        value: what is put there
        place: the full path of ``config`` itself, for the message

    Raises:
        ConfigError: a list has no such position
    """
    key: Any = keys[0]
    path = f"{place}.{key}" if place else key
    if isinstance(config, list):
        if not key.isdigit() or int(key) >= len(config):
            raise ConfigError(path, f"it is no position in a list of {len(config)}", "count from 0")
        key = int(key)
    if len(keys) == 1:
        config[key] = value
        return
    inside = config[key] if isinstance(config, list) else config.get(key)
    if not isinstance(inside, dict | list):
        inside = {} if inside is None else {"name": inside}
    config[key] = inside
    put(inside, keys[1:], value, path)


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """What differs between two configs, one ``key: old -> new`` each; a place in a list is a key."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, pair in enumerate(zip(old, new, strict=True)) for d in differences(*pair, f"{key}.{i}")]
    return [] if old == new else [f"{key}: {old} -> {new}"]
