"""Single values of a config against their types: jsonargparse converts them, and we say what is wrong."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dxmi.api import ConfigError
from dxmi.config.plugin_syntax import GROUP_OF, members

EXACT = (bool, int, float, str)
"""types whose values stay as they are"""


def converted(value: Any, hint: Any, key: str) -> Any:
    """The value as its type: 1 as a float is 1.0, and "[1, 2]" as a list is one.

    Plugins and mappings among the alternatives of ``hint`` were parsed before: what is left is none of them.

    Raises:
        ConfigError: it cannot be one
    """
    if hint in EXACT and type(value) is hint:
        return value
    plain = tuple(member for member in members(hint) if not describes(member))
    if value is None and NoneType in plain:
        return None
    if not set(plain) - {NoneType}:
        raise mismatch(value, hint, key)
    kind = hint if plain == members(hint) else Union[plain]  # noqa: UP007
    try:
        own = deepcopy(value) if isinstance(value, list | dict) else value  # jsonargparse converts lists in place
        result = parser_of(kind, repr(kind)).parse_object({"value": own}).value
    except ArgumentError as error:
        raise mismatch(value, hint, key) from error
    if isinstance(result, Namespace):  # jsonargparse's own way of naming a class, which is not the one here
        raise mismatch(value, hint, key)
    return result


def mismatch(value: Any, hint: Any, key: str) -> ConfigError:
    """The complaint about a value of another type."""
    return ConfigError(key, f"expected {described(hint)}. Got value: {value}")


def describes(hint: Any) -> bool:
    """Whether a value of this type is described by a plugin, a mapping of keys or a list of these."""
    if get_origin(hint) is list:
        return any(describes(member) for member in members(get_args(hint)[0]))
    return hint in GROUP_OF or is_dataclass(hint)


@cache
def parser_of(hint: Any, text: str) -> ArgumentParser:
    """A parser of one value. ``text`` is the hint's: int | float equals float | int, and is converted otherwise."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def as_yaml(value: Any, hint: Any) -> Any:
    """The value as YAML has it: numbers, strings, lists, mappings and null; what is none of these by its type."""
    if is_plain(value):
        return with_lists(value)
    settings = Namespace(value=value)  # type: ignore[no-untyped-call]
    text = parser_of(hint, repr(hint)).dump(settings, skip_none=False)
    return yaml.safe_load(text)["value"]


def is_plain(value: Any) -> bool:
    """Whether YAML has it, but for tuples."""
    if type(value) in (list, tuple):
        return all(is_plain(v) for v in value)
    if type(value) is dict:
        return all(is_plain(v) for v in (*value, *value.values()))
    return type(value) in (str, int, float, bool, NoneType)


def with_lists(value: Any) -> Any:
    """The same with tuples as lists."""
    if isinstance(value, list | tuple):
        return [with_lists(v) for v in value]
    return {k: with_lists(v) for k, v in value.items()} if isinstance(value, dict) else value


def described(hint: Any) -> str:
    """A type as a message has it: "an int", "one of str, null"."""
    if get_origin(hint) is Literal:
        return f"one of {list(get_args(hint))}"
    if len(members(hint)) > 1:
        return f"one of {', '.join(map(type_name, members(hint)))}"
    name = type_name(hint)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def type_name(hint: Any) -> str:
    """A type as it is written, but for what a config has other words for: null, plugins and mappings."""
    if hint in (NoneType, Ellipsis):
        return "null" if hint is NoneType else "..."
    if hint in GROUP_OF or is_dataclass(hint):
        return "plugin" if hint in GROUP_OF else "mapping"
    if len(members(hint)) > 1:
        return " | ".join(map(type_name, members(hint)))
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return str(list(inner))
    name = getattr(origin or hint, "__name__", str(hint))
    plain = inner and not any(isinstance(member, list) for member in inner)  # a Callable's arguments are a list
    return f"{name}[{', '.join(map(type_name, inner))}]" if plain else name
