"""The YAML dialect: ``{name: conv, width: 32}`` names a plugin and its options, at any depth.

A dialect is translated by the types of the parameters it fills: where a constructor asks for an ``Energy``, ``name``
is looked up among the energies.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from dxmi import plugins
from dxmi.api import Energy, Evaluator, GaussianSampler, Sampler, Scheduler
from dxmi.errors import ConfigError

GROUP_OF: dict[Any, str] = {
    Energy: "dxmi.energies",
    Scheduler: "dxmi.schedulers",
    Sampler: "dxmi.samplers",
    GaussianSampler: "dxmi.samplers",
    Evaluator: "dxmi.evaluators",
}


def read(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """A YAML file with ``--key.sub VALUE`` overrides laid over it, in the dialect.

    Strings that start with ``./`` or ``../`` become absolute paths: in the file relative to it, in overrides to the
    working directory.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or an override is malformed
    """
    try:
        found = yaml.load(Path(path).read_text(), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: is not a YAML mapping of keys to values")
    config: dict[str, Any] = absolute(found, Path(path).resolve().parent)
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
            raise ConfigError(f"{key}: give overrides as --key.sub VALUE")
        try:
            parsed = yaml.load(value, Loader)
        except yaml.YAMLError:
            parsed = value
        put(config, key[2:].split("."), absolute(parsed, Path.cwd()))


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


def put(config: Any, keys: list[str], value: Any) -> None:
    """Set ``config[a][b][c]``; a plugin given by its bare name becomes a mapping, a list is indexed by number."""
    key: Any = keys[0]
    if isinstance(config, list):
        if not key.isdigit() or int(key) >= len(config):
            raise ConfigError(
                f"'{key}' is no position in a list of {len(config)}; count from 0, as --evaluators.0.samples"
            )
        key = int(key)
    if len(keys) == 1:
        config[key] = value
        return
    below = config[key] if isinstance(config, list) else config.get(key)
    if not isinstance(below, dict | list):
        below = {} if below is None else {"name": below}
    config[key] = below
    put(below, keys[1:], value)


def expand(value: Any, hint: Any, key: str) -> Any:
    """The dialect -> ``{class_path, init_args}``, guided by the type that is asked for.

    Raises:
        ConfigError: a key or an option does not exist, or a plugin cannot be had
    """
    if hint in GROUP_OF and value is not None:
        return expand_plugin(value, GROUP_OF[hint], key)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return expand_options(value, hint, key)
    if get_origin(hint) is list and isinstance(value, list):
        return [expand(v, get_args(hint)[0], f"{key}.{i}") for i, v in enumerate(value)]
    if get_origin(hint) in (Union, UnionType):
        return next((e for e in (expand(value, member, key) for member in get_args(hint)) if e is not value), value)
    return value


def expand_plugin(value: Any, group: str, key: str) -> dict[str, Any]:
    """One plugin, given by its bare name or as a mapping with ``name``; a list of energies is their product."""
    if isinstance(value, list) and group == GROUP_OF[Energy]:
        value = {"name": "product", "experts": value}
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{key}: give a plugin as {{name: ..., options}}; 'dxmi plugins' lists the names")
    try:
        kind = plugins.load(group, name)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    return {"class_path": plugins.class_path(kind), "init_args": expand_options(options, kind, key)}


def expand_options(options: dict[str, Any], kind: Any, key: str) -> dict[str, Any]:
    """The arguments of a class, each expanded by its own type."""
    constructor = inspect.unwrap(kind.__init__)
    known = [p for p in inspect.signature(constructor).parameters if p != "self"]
    try:
        hints = get_type_hints(kind if dataclasses.is_dataclass(kind) else constructor)
    except NameError as error:  # an annotation in a string that names what is imported for type checkers alone
        raise ConfigError(f"{key}: {kind.__qualname__} has an annotation that cannot be resolved: {error}") from error
    for option in options:
        path = f"{key}.{option}" if key else option
        if option not in known:
            near = get_close_matches(str(option), known, n=2) or known
            raise ConfigError(f"{path}: no such key; nearest: {', '.join(near)}" if near else f"{path}: no such key")
        if option not in hints:
            raise ConfigError(f"{path}: {kind.__qualname__} does not say of which type it is")
        if options[option] is None and hints[option] is not Any and type(None) not in get_args(hints[option]):
            raise ConfigError(f"{path}: it cannot be null; leave it out for its default")
    return {k: expand(v, hints[k], f"{key}.{k}" if key else k) for k, v in options.items()}


def contract(value: Any) -> Any:
    """``{class_path, init_args}`` -> the dialect, and tuples -> lists."""
    if isinstance(value, list | tuple):
        return [contract(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "class_path" in value:
        return {"name": plugins.name_of(value["class_path"]), **contract(value.get("init_args") or {})}
    return {k: contract(v) for k, v in value.items()}


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """What differs between two configs, one ``key: old -> new`` each; a place in a list is a key."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, pair in enumerate(zip(old, new, strict=True)) for d in differences(*pair, f"{key}.{i}")]
    return [] if old == new else [f"{key}: {old} -> {new}"]
