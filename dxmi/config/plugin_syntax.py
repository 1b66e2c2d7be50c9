"""The syntax of configs: ``{name: conv, width: 32}`` names a plugin and its options, at any depth.

It is read by the types of the parameters that it fills: where a constructor asks for an ``Energy``, ``name`` is looked
up among the energies.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass
class Part:
    """What a mapping in a config describes: an object, before it is built.

    Args:
        kind: its class
        options: arguments of the class: values, parts, or lists of these
        name: the plugin's name; None for a mapping of keys, which is a dataclass
    """

    kind: Any
    options: dict[str, Any]
    name: str | None = None


def below(key: str, name: object) -> str:
    """The full path of what is called ``name`` in ``key``."""
    return f"{key}.{name}" if key else str(name)


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the one type that it is."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def parse(value: Any, hint: Any, key: str) -> Any:
    """Every plugin and mapping in what a config says as a ``Part``, guided by the type that is asked for.

    Types of values and required options are not looked at: ``Checked`` does that.

    Raises:
        ConfigError: a key or an option does not exist, or a plugin cannot be had
    """
    for member in members(hint):
        if member in GROUP_OF and (value is not None or member is hint):
            return parse_plugin(value, GROUP_OF[member], key)
        if dataclasses.is_dataclass(member) and isinstance(value, dict):
            return Part(member, parse_options(value, member, key))
        if get_origin(member) is list and isinstance(value, list):
            parts = [parse(v, get_args(member)[0], below(key, i)) for i, v in enumerate(value)]
            if any(part is not v for part, v in zip(parts, value, strict=True)):
                return parts
    return value


def parse_plugin(value: Any, group: str, key: str) -> Part:
    """One plugin, given by its bare name or as a mapping with ``name``; a list of energies is their product.

    Raises:
        ConfigError: a key or an option does not exist, or a plugin cannot be had
    """
    if isinstance(value, list) and group == GROUP_OF[Energy]:
        value = {"name": "product", "experts": value}
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(key, "give a plugin as {name: ..., options}", "'dxmi plugins' lists the names")
    try:
        kind = plugins.load(group, name)
    except ConfigError as error:  # it names the plugin, and here the key stands before that
        raise ConfigError(key, ": ".join(filter(None, [error.key, error.reason])), error.cure) from error
    return Part(kind, parse_options(options, kind, key, "--help lists them"), name)


def parse_options(options: Mapping[str, Any], kind: Any, key: str, page: str = "see docs/config.md") -> dict[str, Any]:
    """The arguments of a class, each parsed by its own type. ``page`` says where all of them are listed.

    Raises:
        ConfigError: a key or an option does not exist, or a plugin cannot be had
    """
    known = list(defaults_of(kind))
    hints = hints_of(kind, key)
    for option, value in options.items():
        path = below(key, option)
        if option not in known:
            raise ConfigError(path, "no such key", nearest(str(option), known, page))
        if option not in hints:
            raise ConfigError(path, f"{kind.__qualname__} does not say of which type it is")
        if value is None and hints[option] is not Any and type(None) not in get_args(hints[option]):
            raise ConfigError(path, "it cannot be null", "leave it out for its default")
    return {option: parse(value, hints[option], below(key, option)) for option, value in options.items()}


def nearest(name: str, known: list[str], page: str) -> str:
    """What to say of a name that is none of those known: the nearest ones, all where they are few, or the page."""
    near = get_close_matches(name, known, n=2)
    if not near and len(known) > plugins.FEW:
        return page
    names = ", ".join(near or known)
    return f"nearest: {names}" if names else ""


def hints_of(kind: Any, key: str = "") -> dict[str, Any]:
    """The types of a class's arguments, by name. Raises ConfigError, which names ``key``, if one cannot be told."""
    try:
        return get_type_hints(kind if dataclasses.is_dataclass(kind) else inspect.unwrap(kind.__init__))
    except NameError as error:  # an annotation in a string that names what is imported for type checkers alone
        raise ConfigError(key, f"{kind.__qualname__} has an annotation that cannot be resolved: {error}") from error


def defaults_of(kind: Any) -> dict[str, Any]:
    """The arguments of a class in the order of its signature, with their defaults; ``Parameter.empty`` for none."""
    factories = {}
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(kind)
        factories = {f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING}
    parameters = list(inspect.signature(inspect.unwrap(kind.__init__)).parameters.values())[1:]  # without self
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: factories[p.name]() if p.name in factories else p.default for p in named}
