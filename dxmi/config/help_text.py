"""What ``--help`` says of a config: every key, with the options of the plugins that it names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentParser

from dxmi.config import plugins
from dxmi.config.plugin_syntax import Part, below, parse_options


def help_text(kind: type[Any], config: dict[str, Any], command: str) -> str:
    """Every key of ``kind`` with its type and what it is in ``config``, and the options of the plugins named there.

    Raises:
        ConfigError: the config names a plugin or a key that does not exist
    """
    given = dict(leaves(config))
    parts = [options_help(kind, None, f"dxmi {command} CONFIG [--key.sub VALUE ...]", given)]
    parts += mappings_help(get_type_hints(kind), "", given)
    for key, plugin in named_plugins(parse_options(config, kind, "")):
        parts.append(options_help(plugin.kind, key, f"--{key} {plugin.name}", given))
        parts += mappings_help(get_type_hints(plugin.kind.__init__), f"{key}.", given)
    names = {group.removeprefix("dxmi."): ", ".join(plugins.installed(group)) for group in plugins.GROUPS}
    parts.append("installed plugins:\n" + "\n".join(f"  {group}: {listed}" for group, listed in names.items()))
    return "\n".join(parts)


def mappings_help(hints: dict[str, Any], prefix: str, given: dict[str, Any]) -> list[str]:
    """The keys of those options that are a mapping or null."""
    kinds = [(f"{prefix}{key}", kind) for key, hint in hints.items() for kind in get_args(hint) if is_dataclass(kind)]
    return [options_help(kind, key, f"--{key}, a mapping", given) for key, kind in kinds]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a config in the dialect and what they are; a plugin's own key has its name."""
    if isinstance(value, dict):
        if "name" in value:
            yield key, value["name"]
        for k, v in value.items():
            yield from leaves(v, f"{key}.{k}" if key else k)
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        yield key, [dict(leaves(v)).get("", v) for v in value]
        for i, v in enumerate(value):
            yield from leaves(v, f"{key}.{i}")
    else:
        yield key, value


def options_help(kind: Any, key: str | None, title: str, given: dict[str, Any]) -> str:
    """The arguments of one class, with ``given`` as defaults.

    What jsonargparse adds for its own command line is left out: it is not ours.
    """
    parser = ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parser.add_class_arguments(kind, key, sub_configs=False)
    for action in parser._actions:
        action.option_strings = [option for option in action.option_strings if not option.endswith("+")]
        if action.dest.endswith(".help") or action.metavar == "CONFIG":
            action.help = argparse.SUPPRESS
        if action.dest in given:
            action.default, action.required = given[action.dest], False
    own = r"<class\s+'(\w+)'>|``|(?<= )\*\*(\w+)\*\*|,\s+known\s+subclasses:[^)]*"
    text = re.sub(own, lambda m: m[1] or m[2] or "", parser.format_help())
    return f"{title}\n{text}"


def named_plugins(value: Any, key: str = "") -> Iterator[tuple[str, Part]]:
    """Every plugin in parsed options, with its key."""
    if isinstance(value, Part):
        if value.name is not None:
            yield key, value
        yield from named_plugins(value.options, key)
    elif isinstance(value, dict):
        for name, inside in value.items():
            yield from named_plugins(inside, below(key, name))
    elif isinstance(value, list):
        for i, inside in enumerate(value):
            yield from named_plugins(inside, below(key, i))
