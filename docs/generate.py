"""Writes what comes from the code in docs/config.md, docs/cli.md, docs/python.md and docs/plugins.md.

    python docs/generate.py            # write it
    python docs/generate.py --check    # compare it with the code; exit status 1 where a page is stale

It stands between two marks; the text around them is written by hand. Pages are compared word by word, since versions
of Python break the lines of ``--help`` at other places.
"""

import argparse
import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from docstrings import arguments, docstring, hints_of, members, plain, prose, sentence, signature

DOCS = Path(__file__).parent
WIDTH = 100  # of --help
MARKS = ("<!-- from here on written by docs/generate.py -->", "<!-- up to here written by docs/generate.py -->")
ROOMS = ("api", "config", "data", "pipelines", "chains", "game", "runs", "evaluation", "pretraining", "training")
SHELVES = ("energies", "samplers", "schedulers", "evaluators", "teachers")
COMMANDS = ("train", "pretrain", "sample", "evaluate", "score", "inspect", "export", "push", "plugins")


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    if not parser.parse_args().check:
        for name, text in pages().items():
            (DOCS / name).write_text(text)
        return 0
    names = stale()
    if names:
        print(f"stale: {', '.join(names)}; run 'python docs/generate.py'", file=sys.stderr)
    return 1 if names else 0


def stale() -> list[str]:
    """The generated pages whose words are not those of the code."""
    return [name for name, text in pages().items() if (DOCS / name).read_text().split() != text.split()]


def pages() -> dict[str, str]:
    """Every page with a generated part as it should be."""
    parts = {"config.md": all_keys, "cli.md": all_help, "python.md": all_names, "plugins.md": builtins_table}
    return {name: between(MARKS, (DOCS / name).read_text(), part()) for name, part in parts.items()}


def between(marks: tuple[str, str], text: str, part: str) -> str:
    """A page with ``part`` between its marks."""
    before, _, rest = text.partition(marks[0])
    return f"{before}{marks[0]}\n\n{part.strip()}\n\n{marks[1]}{rest.partition(marks[1])[2]}"


# Configuration: every key of every YAML file.


def all_keys() -> str:
    """Tables of the keys of the three kinds of files, and of every plugin's options."""
    from dxmi.config import ChainsConfig, PretrainConfig, TrainConfig

    parts = []
    for command, kind in (("train", TrainConfig), ("pretrain", PretrainConfig), ("sample", ChainsConfig)):
        parts += [f"## Keys of `dxmi {command} CONFIG`", *sections(kind, "", command != "train")]
    parts += ["## Options of the plugins", "What may stand beside `name`. The built-ins of each group, by name."]
    for group in SHELVES[:-1]:  # teachers are chosen by what a pipeline is, and no file names them
        found = plugins_of(group)
        parts += [f"### {group.capitalize()}"] if found else []
        for name, kind in found.items():
            parts += [f"#### `{name}`", sentence(kind), *sections(kind, "")]
    return "\n\n".join(parts)


def sections(kind: Any, prefix: str, data_known: bool = False, of: Any = None) -> list[str]:
    """A table of the options of a class, then one for each option that is a mapping of known keys.

    ``of`` is what stands where nothing is given, if not the class's own defaults.
    """
    hints, rows, below = hints_of(kind), [], []
    told = arguments(kind)
    for name, parameter in inspect.signature(kind).parameters.items():
        nested = [k for k in (hints.get(name), *get_args(hints.get(name))) if dataclasses.is_dataclass(k)]
        known = data_known and name == "data"
        for inner in nested:
            title = f"**`{prefix}{name}`**: {sentence(inner)}"
            below += [f"{title} The keys are those of `data` of `dxmi train`."] if known else [title]
            below += [] if known else sections(inner, f"{prefix}{name}.", of=usual(kind, name))
        default = "below" if nested and parameter.default is not None else shown(kind, parameter)
        default = default if of is None or default == "below" else yaml_of(getattr(of, name))
        cells = (f"`{prefix}{name}`", written(hints[name]), default, plain(told.get(name, "")))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if not rows:
        return ["It has no options."]
    return ["\n".join(["| key | type | default | |", "|---|---|---|---|", *rows]), *below]


def shown(kind: Any, parameter: inspect.Parameter) -> str:
    """A default as YAML has it; "needed" where there is none."""
    made = usual(kind, parameter.name)
    value = parameter.default if made is None else made
    return "needed" if value is inspect.Parameter.empty else yaml_of(value)


def usual(kind: Any, name: str) -> Any:
    """What the field of a dataclass is where it is made anew each time; None of others."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    factory = next((f.default_factory for f in fields if f.name == name), dataclasses.MISSING)
    return None if factory is dataclasses.MISSING else factory()


def yaml_of(value: Any) -> str:
    """A value as YAML has it."""
    plain = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | NoneType) else None
    return f"`{plain or (list(value) if isinstance(value, tuple) else value)}`"


def written(hint: Any) -> str:
    """A type as a reader of YAML says it."""
    from dxmi.config.plugin_syntax import GROUP_OF

    words = {str: "text", NoneType: "null", dict: "mapping", Any: "any", Path: "path", Callable: "Python callable"}
    origin, inner = get_origin(hint), get_args(hint)
    if hint in GROUP_OF:
        return f"plugin ({GROUP_OF[hint].removeprefix('dxmi.').replace('gies', 'gy').removesuffix('s')})"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(written(member) for member in inner))
    if origin in (list, tuple):
        return f"list of {written(inner[0])}"
    if dataclasses.is_dataclass(hint):
        return "mapping"
    found = origin or hint
    return words.get(found, getattr(found, "__name__", str(found)))


# Command line: what --help says.


def all_help() -> str:
    """``--help`` of every command, as it prints in ``WIDTH`` columns."""
    parts = []
    for command, text in zip(("", *COMMANDS), helps(), strict=True):
        shown = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts += [f"## `{f'dxmi {command}'.strip()}`", f"```text\n{shown}\n```"]
    return "\n\n".join(parts)


def helps() -> list[str]:
    """What the commands print, in a fresh process: help tells of classes that happen to be imported."""
    code = f"""
from contextlib import suppress
from dxmi.cli import main
for command in {("", *COMMANDS)}:
    with suppress(SystemExit):
        main([*command.split(), "--help"])
    print(chr(0))
"""
    environment = {**os.environ, "COLUMNS": str(WIDTH)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


# Python: the names that the package and its rooms offer.


def all_names() -> str:
    """Signature and docstring of what ``dxmi`` and its contracts offer; a line for each name of the other rooms."""
    import dxmi

    parts = ["## `import dxmi`"]
    parts += [entry for name in sorted(dxmi.__all__, key=str.lower) for entry in described(dxmi, name, "dxmi")]
    for room in ROOMS:
        module = importlib.import_module(f"dxmi.{room}")
        names = sorted(offered(module), key=str.lower)
        if not names:
            continue
        parts += [f"## `dxmi.{room}`", plain(inspect.getdoc(module) or "").split(" `__init__")[0]]
        if room == "api":  # all that a plugin needs
            parts += [entry for name in names for entry in described(module, name, room)]
        else:
            rows = [f"| `{name}` | {cell(getattr(module, name))} |" for name in names]
            parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def offered(module: Any) -> list[str]:
    """The classes, functions and types that a room's ``__init__`` offers; of constants its files speak."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    things = {name: getattr(module, name) for name in names}
    return [
        n for n, thing in things.items() if callable(thing) or not isinstance(thing, ModuleType | int | str | tuple)
    ]


def described(module: Any, name: str, room: str) -> Iterator[str]:
    """One public name: signature, docstring, and a line for each method."""
    thing = getattr(module, name)
    yield f"### `{name}`" if room == "dxmi" else f"### `{room}.{name}`"
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        told = inspect.getdoc(thing) if inspect.isroutine(thing) or inspect.ismodule(thing) else None
        yield f"`{str(thing).replace('typing.', '')}`" if told is None else plain(told)
        return
    if dataclasses.is_dataclass(thing) and name.endswith("Config"):
        yield f"{sentence(thing)} Its fields are keys of [configuration](config.md)."
        return
    call = signature(name, thing)
    if "*args" not in call:  # of a base class that does not say what it takes
        yield f"```python\n{call}\n```"
    yield from prose(docstring(thing))
    if inspect.isclass(thing):
        methods = [f"- `{call}`: {told}" for call, told in members(thing)]
        yield from ["What it has:", "\n".join(methods)] if methods else []


# Plugins: the table of built-ins.


def builtins_table() -> str:
    """A row for each built-in plugin."""
    rows = ["| group | name | |", "|---|---|---|"]
    rows += [f"| {group} | `{name}` | {cell(kind)} |" for group in SHELVES for name, kind in plugins_of(group).items()]
    return "\n".join(rows)


def cell(kind: Any) -> str:
    """A docstring's first line for a table; of a type the type."""
    if not callable(kind) or get_origin(kind) is not None:
        return f"`{str(kind).replace('typing.', '')}`".replace("|", "\\|")
    return sentence(kind).replace("|", "\\|")


def plugins_of(group: str) -> dict[str, Any]:
    """The built-in plugins of a group, by name."""
    from dxmi.config import plugins

    found = plugins.installed(f"dxmi.{group}") if f"dxmi.{group}" in plugins.GROUPS else {}
    return {n: plugins.load(f"dxmi.{group}", n) for n, p in sorted(found.items()) if "dxmi" in p.distributions}


if __name__ == "__main__":
    raise SystemExit(main())
