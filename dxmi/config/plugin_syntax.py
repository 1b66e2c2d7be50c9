"""The YAML dialect: ``{name: conv, width: 32}`` names a plugin and its options, at any depth.

A dialect is translated by the types of the parameters it fills: where a constructor asks for an ``Energy``, ``name``
is looked up among the energies.
"""

from __future__ import annotations

import dataclasses
import inspect
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from dxmi.api import ConfigError, Energy, Evaluator, GaussianSampler, Sampler, Scheduler
from dxmi.config import plugins

GROUP_OF: dict[Any, str] = {
    Energy: "dxmi.energies",
    Scheduler: "dxmi.schedulers",
    Sampler: "dxmi.samplers",
    GaussianSampler: "dxmi.samplers",
    Evaluator: "dxmi.evaluators",
}


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
        raise ConfigError(key, "give a plugin as {name: ..., options}", "'dxmi plugins' lists the names")
    try:
        kind = plugins.load(group, name)
    except ConfigError as error:
        raise ConfigError(key, f"{error}") from error
    return {"class_path": plugins.class_path(kind), "init_args": expand_options(options, kind, key)}


def hints_of(kind: Any, key: str = "") -> dict[str, Any]:
    """The types of a class's arguments, by name. Raises ConfigError, which names ``key``, if one cannot be told."""
    try:
        return get_type_hints(kind if dataclasses.is_dataclass(kind) else inspect.unwrap(kind.__init__))
    except NameError as error:  # an annotation in a string that names what is imported for type checkers alone
        raise ConfigError(key, f"{kind.__qualname__} has an annotation that cannot be resolved: {error}") from error


def expand_options(options: dict[str, Any], kind: Any, key: str) -> dict[str, Any]:
    """The arguments of a class, each expanded by its own type."""
    known = [p for p in inspect.signature(inspect.unwrap(kind.__init__)).parameters if p != "self"]
    hints = hints_of(kind, key)
    for option in options:
        path = f"{key}.{option}" if key else option
        if option not in known:
            near = get_close_matches(str(option), known, n=2) or known
            raise ConfigError(path, "no such key", f"nearest: {', '.join(near)}" if near else "")
        if option not in hints:
            raise ConfigError(path, f"{kind.__qualname__} does not say of which type it is")
        if options[option] is None and hints[option] is not Any and type(None) not in get_args(hints[option]):
            raise ConfigError(path, "it cannot be null", "leave it out for its default")
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
