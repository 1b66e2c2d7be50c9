"""Plugins found by entry point. Standard library only and lazy: nothing is imported before it is named."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dxmi.api import ConfigError
from dxmi.api.errors import first_line

GROUPS = ("dxmi.energies", "dxmi.schedulers", "dxmi.samplers", "dxmi.evaluators")


@dataclass(frozen=True)
class Plugin:
    """One name of one group and who claims it. ``problem`` says why it cannot be used, or is None."""

    group: str
    name: str
    claims: tuple[EntryPoint, ...]
    problem: str | None = None

    @property
    def value(self) -> str:
        """``module:attribute``, without spaces."""
        return self.claims[0].value.replace(" ", "")

    @property
    def distributions(self) -> list[str]:
        """Who claims the name."""
        return owners(self.claims)

    def load(self) -> Any:
        """Import the class. Raises ConfigError with the reason if that fails or two distributions claim the name."""
        if len(self.claims) > 1:
            raise ConfigError(self.name, f"{twice(self.claims)}", "uninstall one of them")
        try:
            return self.claims[0].load()
        except (Exception, SystemExit) as error:  # a plugin's module may raise anything; the reason is passed on
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(self.name, f"the plugin {self.value} fails to import: {reason}") from error


def installed(group: str, imported: bool = False) -> dict[str, Plugin]:
    """The plugins of one group by name. Without ``imported`` problems are looked for in the files alone."""
    claims: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        if point not in claims.setdefault(point.name, []):
            claims[point.name].append(point)
    found = {}
    for name, points in sorted(claims.items()):
        plugin = Plugin(group, name, tuple(points))
        problem = (
            twice(points) if len(points) > 1 else imported_problem(plugin) if imported else file_problem(points[0])
        )
        found[name] = Plugin(group, name, tuple(points), problem)
    return found


def load(group: str, name: str) -> Any:
    """The class behind a name.

    Raises:
        ConfigError: no plugin has that name (the nearest are offered), two have it, or it fails to import
    """
    found = installed(group)
    if name not in found:
        near = get_close_matches(name, found, n=3) or sorted(found)
        kind = group.removeprefix("dxmi.")
        raise ConfigError(f"no plugin '{name}' among the {kind}; nearest", f"{', '.join(near)} (see 'dxmi plugins')")
    return found[name].load()


def name_of(path: str) -> str:
    """The name of a plugin in use by its ``class_path``. Raises ConfigError if none is installed from there."""
    for plugin in (p for group in GROUPS for p in installed(group).values()):
        imported = plugin.problem is None and plugin.claims[0].module in sys.modules
        if imported and class_path(plugin.load()) == path:
            return plugin.name
    raise ConfigError(path, "it is not installed under any name")


def class_path(kind: Any) -> str:
    """``module.Class`` of where it is defined, which may be another module than its entry point says."""
    return f"{kind.__module__}.{kind.__qualname__}"


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
