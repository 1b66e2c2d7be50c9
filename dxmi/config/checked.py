"""Checking a config and building what it describes. jsonargparse does both, and the rest of dxmi does not know it."""

from __future__ import annotations

import re
from dataclasses import is_dataclass, make_dataclass
from pydoc import locate
from typing import Any, Generic, TypeVar, cast, get_args

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dxmi.api import ConfigError
from dxmi.api.errors import first_line
from dxmi.config.plugin_syntax import contract, expand_options, hints_of

T = TypeVar("T")


def one_line(error: Exception) -> str:
    """Jsonargparse's nested report -> ``key.sub: what is wrong``."""
    text, opening = str(error), 'Parser key "|Problem with'
    keys = re.findall(r'(?:Parser key|Key) "([^"]+)"', text)
    lines = [line.strip(" -") for line in text.splitlines() if line.strip() and not re.search(opening, line)]
    complaint = " ".join(lines) or text
    union = re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value: (.*)", complaint)
    inner = re.findall(rf"(?:{opening})[^\n]*:\n[\s-]++((?!Does not|{opening})[^\n]+)", text)
    if union and inner:  # one of the alternatives was meant, and something in it is wrong
        complaint = inner[-1]
    elif union:
        complaint = f"Expected one of {union[1].replace('NoneType', 'null')}. Got value: {union[2]}"
    complaint = re.sub(r"<class '([^']+)'>", r"\1", complaint).replace("a typing.Literal", "one of ")
    complaint = complaint.replace(" a int", " an int")
    return ": ".join(filter(None, [".".join(keys), complaint[0].lower() + complaint[1:]]))


def build_plugin(kind: type[T], value: Any, key: str = "") -> T:
    """One plugin from its dialect, ``{name: ..., options}``. Raises ConfigError as ``Checked`` does, below ``key``."""
    holder = make_dataclass("Holder", [("plugin", kind)])
    try:
        return cast(T, Checked(holder, {"plugin": value}).build().plugin)  # type: ignore[attr-defined]
    except ConfigError as error:
        raise error.moved("plugin", key) from error


class Checked(Generic[T]):
    """A config whose keys and types are right, nothing built yet. ``resolved`` is the dialect with every default."""

    def __init__(self, kind: type[T], config: dict[str, Any]):
        """Raises ConfigError naming the key that does not exist or has the wrong type."""
        self.parser = ArgumentParser(exit_on_error=False)
        self.parser.add_class_arguments(kind, sub_configs=False)
        try:
            self.values: Namespace = self.parser.parse_object(expand_options(config, kind, ""))
        except ArgumentError as error:
            raise ConfigError(one_line(error)) from error
        self.resolved: dict[str, Any] = contract(yaml.safe_load(self.parser.dump(self.values, skip_none=False)))
        self.kind = kind

    def build(self) -> T:
        """Construct everything. Weights come from torch's global generator: seed it first.

        Raises:
            ConfigError: a constructor refuses its options
        """
        return cast(T, construct(self.kind, self.values))


def construct(kind: Any, options: Namespace) -> Any:
    """``kind(**options)`` with everything in it built. A plugin names its options alone, their place is added here."""
    hints = hints_of(kind)
    arguments = {name: built(value, hints[name], name) for name, value in vars(options).items()}
    try:
        return kind(**arguments)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError("", f"{kind.__name__} refuses its options: {first_line(error)}") from error


def built(value: Any, hint: Any, key: str) -> Any:
    """What a checked value describes: plugins and dataclasses as objects, at any depth."""
    if isinstance(value, list):
        return [built(v, next(iter(get_args(hint)), Any), f"{key}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, Namespace):
        return value
    if "class_path" not in value:
        return construct(next(k for k in (hint, *get_args(hint)) if is_dataclass(k)), value)
    try:
        return construct(locate(value.class_path), value.get("init_args", Namespace()))
    except ConfigError as error:
        raise error.under(key) from error
