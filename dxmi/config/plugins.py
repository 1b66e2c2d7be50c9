"""Plugins found by entry point. Standard library only and lazy: nothing is imported before it is named.

A process reads the entry points once: what is installed later, it sees after ``forget()``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from dxmi.api import ConfigError
from dxmi.api.errors import first_line

GROUPS = ("dxmi.energies", "dxmi.schedulers", "dxmi.samplers", "dxmi.evaluators", "dxmi.teachers")
FEW = 8
"""so many names are still read when a wrong one is far from all of them"""


@dataclass(frozen=True)
class Plugin:
    """One name of one group and who claims it.

    Args:
        group: such as dxmi.energies
        name: what configs call it
        claims: entry points, one for each distribution that has one of that name
        imported: whether a problem is looked for by importing the plugin; otherwise its file is read
    """

    group: str
    name: str
    claims: tuple[EntryPoint, ...]
    imported: bool = False

    @property
    def value(self) -> str:
        """``module:attribute``, without spaces."""
        return self.claims[0].value.replace(" ", "")

    @property
    def distributions(self) -> list[str]:
        """Who claims the name."""
        return owners(self.claims)

    @cached_property
    def problem(self) -> str | None:
        """Why it cannot be used, or None. Lookups by name do not ask, since that reads a file."""
        if len(self.claims) > 1:
            return twice(self.claims)
        return imported_problem(self) if self.imported else file_problem(self.claims[0])

    def load(self) -> Any:
        """Import the class. Raises ConfigError with the reason if that fails or two distributions claim the name."""
        if len(self.claims) > 1:
            raise ConfigError(self.name, twice(self.claims), "uninstall one of them")
        try:
            return self.claims[0].load()
        except (Exception, SystemExit) as error:  # a plugin's module may raise anything; the reason is passed on
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(self.name, f"the plugin {self.value} fails to import: {reason}") from error


@cache
def installed(group: str, imported: bool = False) -> dict[str, Plugin]:
    """The plugins of one group by name, from the entry points alone. ``imported`` is as in ``Plugin``."""
    claims: dict[str, list[EntryPoint]] = {}
    for point in every_entry_point().select(group=group):
        if point not in claims.setdefault(point.name, []):
            claims[point.name].append(point)
    return {name: Plugin(group, name, tuple(points), imported) for name, points in sorted(claims.items())}


def plugins(*, check: bool = False) -> list[Plugin]:
    """What is installed: energies, schedulers, samplers, evaluators and teachers, of all distributions.

    Args:
        check: import each of them, to find all that fail; otherwise ``problem`` is what its file shows
    """
    return [plugin for group in GROUPS for plugin in installed(group, imported=check).values()]


@cache
def every_entry_point() -> EntryPoints:
    """Those of all distributions, from the files of each."""
    return cast(EntryPoints, entry_points())


def forget() -> None:
    """Look again for what is installed, at the next question."""
    every_entry_point.cache_clear()
    installed.cache_clear()


def load(group: str, name: str) -> Any:
    """The class behind a name.

    Raises:
        ConfigError: no plugin has that name (the nearest are offered), two have it, or it fails to import
    """
    known = installed(group)
    if name not in known:
        near = get_close_matches(name, known, n=3) or (list(known) if len(known) <= FEW else [])
        cure = f"nearest: {', '.join(near)} (see 'dxmi plugins')" if near else "'dxmi plugins' lists the names"
        raise ConfigError("", f"no plugin '{name}' among the {group.removeprefix('dxmi.')}", cure)
    return known[name].load()


def twice(points: Sequence[EntryPoint]) -> str:
    """The complaint about a name claimed more than once."""
    return f"claimed twice, by {' and '.join(owners(points))}"


def owners(points: Sequence[EntryPoint]) -> list[str]:
    """The distributions behind entry points; one without metadata has no name."""
    return [point.dist.name if point.dist and point.dist.name else "?" for point in points]


def imported_problem(plugin: Plugin) -> str | None:
    """Why the plugin cannot be imported, or None."""
    try:
        plugin.load()
    except ConfigError as error:
        return "; ".join(filter(None, [error.reason, error.cure]))
    return None


def file_problem(point: EntryPoint) -> str | None:
    """Why the entry point cannot work as far as its file tells without being imported, or None."""
    if not re.fullmatch(r"\w+(\.\w+)*\s*:\s*\w+(\.\w+)*\s*(\[.*\])?\s*", point.value):
        return f"'{point.value}' is not of the form module:Class"
    spec = find_file(point.module)
    if spec is None:
        return f"no module {point.module}"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except SyntaxError as error:
        return f"{point.module}, line {error.lineno}: {error.msg}"
    except OSError:  # in a zip, for one: only importing it can tell
        return None
    known = {point.attr.split(".")[0], "*", "__getattr__"} & bound(tree)
    return None if known else f"{point.module} defines no {point.attr}"


def bound(tree: ast.Module) -> set[str]:
    """Every name that the top level of a module may bind, inside ``if``, ``try`` and the like too."""
    names: set[str] = set()
    left: list[ast.AST] = [*tree.body]
    while left:
        node = left.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        else:
            left += ast.iter_child_nodes(node)
    return names


def find_file(module: str) -> ModuleSpec | None:
    """Where a dotted module lies, found without importing its parents."""
    path, spec = None, None
    for part in module.split("."):  # by its last name alone: a namespace package looks for its parent in sys.modules
        try:
            spec = find_spec(part) if path is None else PathFinder.find_spec(part, path)
        except ValueError:  # __main__ has no spec
            return None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec
