"""Checking a config and building what it describes."""

from __future__ import annotations

import dataclasses
from inspect import Parameter
from types import SimpleNamespace
from typing import Any, Generic, TypeVar, cast, get_args, get_origin

from dxmi.api import ConfigError
from dxmi.api.errors import first_line
from dxmi.config.plugin_syntax import Part, below, defaults_of, hints_of, members, parse, parse_options
from dxmi.config.values import as_yaml, converted, describes, is_plain

T = TypeVar("T")


class Checked(Generic[T]):
    """A config whose keys and types are right, nothing built yet.

    Attributes:
        resolved: the config with every default, as ``run.yaml`` has it: numbers, strings, lists, mappings and null
        values: the same by attribute at the top, converted to their types, as ``values.seed``
    """

    def __init__(self, kind: type[T], config: dict[str, Any]):
        """Check all of ``config``, whose keys are the arguments of the dataclass ``kind``.

        Raises:
            ConfigError: names the key that does not exist, is missing or has the wrong type
        """
        self.part = completed(Part(kind, parse_options(config, kind, "")), "")
        self.values = SimpleNamespace(**self.part.options)
        self.resolved: dict[str, Any] = resolve(self.part)

    def build(self) -> T:
        """Construct everything. Weights come from torch's global generator: seed it first.

        Raises:
            ConfigError: a constructor refuses its options
        """
        return cast(T, construct(self.part))


def build_plugin(kind: type[T], value: Any, key: str = "") -> T:
    """One plugin, given as configs do: by its name or as ``{name: ..., options}``.

    Args:
        kind: what it has to be, as ``Energy``
        value: the name or mapping
        key: where it stands, for messages

    Raises:
        ConfigError: as of ``Checked`` and ``Checked.build``
    """
    return cast(T, built(checked(parse(value, kind, key), kind, key), key))


def completed(part: Part, key: str, defaults: dict[str, Any] | None = None) -> Part:
    """The part with all its options in the order of the signature, checked, at any depth.

    Args:
        part: with the options that were given
        key: where it stands
        defaults: of all options; None takes the signature's. They are converted too, so that 1 becomes 1.0

    Raises:
        ConfigError: an option is missing or has the wrong type
    """
    hints, options = hints_of(part.kind, key), {}
    for name, default in (defaults_of(part.kind) if defaults is None else defaults).items():
        path, is_given, own = below(key, name), name in part.options, None
        value = part.options.get(name, default)
        if value is Parameter.empty:
            raise ConfigError(path, "it is missing", "give it")
        if dataclasses.is_dataclass(default):  # keys that are not given are as in this default
            own = {field.name: getattr(default, field.name) for field in dataclasses.fields(default) if field.init}
            value = value if is_given else Part(type(default), {})
        if isinstance(value, Part):
            options[name] = completed(value, path, own)
        elif is_given or (name in hints and default is not None and is_plain(default)):
            options[name] = checked(value, hints[name], path)
        else:
            options[name] = default
    return Part(part.kind, options, part.name)


def checked(value: Any, hint: Any, key: str) -> Any:
    """A parsed value converted to its type, parts in it completed.

    Raises:
        ConfigError: it has the wrong type, or something in it is missing or has
    """
    if isinstance(value, Part):
        return completed(value, key)
    if isinstance(value, list):
        for member in members(hint):
            if get_origin(member) is list and describes(member):
                inner = get_args(member)[0]
                return [checked(v, inner, below(key, i)) for i, v in enumerate(value)]
    return converted(value, hint, key)


def resolve(part: Part) -> dict[str, Any]:
    """What a config would say to have this part, every default included."""
    hints = hints_of(part.kind)
    options = {name: resolved(value, hints.get(name, Any)) for name, value in part.options.items()}
    return options if part.name is None else {"name": part.name, **options}


def resolved(value: Any, hint: Any) -> Any:
    """One value of it."""
    if isinstance(value, list) and any(isinstance(v, Part) for v in value):
        return [resolved(v, Any) for v in value]
    return resolve(value) if isinstance(value, Part) else as_yaml(value, hint)


def construct(part: Part) -> Any:
    """The object, with everything in it built. A plugin names its options alone, their place is added here."""
    arguments = {name: built(value, name) for name, value in part.options.items()}
    try:
        return part.kind(**arguments)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError("", f"{part.kind.__name__} refuses its options: {first_line(error)}") from error


def built(value: Any, key: str) -> Any:
    """What a checked value describes: plugins and dataclasses as objects, at any depth."""
    if isinstance(value, list):
        return [built(v, below(key, i)) for i, v in enumerate(value)]
    if not isinstance(value, Part):
        return value
    if value.name is None:
        return construct(value)
    try:
        return construct(value)
    except ConfigError as error:
        raise error.under(key) from error
