"""Checking a config and building what it describes. jsonargparse does both, and the rest of dxmi does not know it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import make_dataclass
from typing import Any, Generic, TypeVar, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dxmi.api import ConfigError
from dxmi.config.plugin_syntax import contract, expand_options

T = TypeVar("T")


E = TypeVar("E", bound=BaseException)


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


def causes(error: BaseException | None, kind: type[E]) -> Iterator[E]:
    """The errors of one kind among an error and what caused it."""
    while error is not None:
        if isinstance(error, kind):
            yield error
        error = error.__cause__ or error.__context__


def build_plugin(kind: type[T], value: Any) -> T:
    """One plugin from its dialect, ``{name: ..., options}``. Raises ConfigError as ``Checked`` does."""
    holder = make_dataclass("Holder", [("plugin", kind)])
    return cast(T, Checked(holder, {"plugin": value}).build().plugin)  # type: ignore[attr-defined]


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
        try:
            return self.kind(**self.parser.instantiate(self.values).as_dict())
        except (ValueError, TypeError) as error:
            raise next(causes(error, ConfigError), ConfigError(one_line(error))) from error
