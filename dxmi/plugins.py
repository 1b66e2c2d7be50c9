"""Plugins found by entry point. Standard library only and lazy: nothing is imported before it is named."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dxmi.errors import ConfigError, first_line

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
        return [claim.dist.name if claim.dist else "?" for claim in self.claims]

    def load(self) -> Any:
        """Import the class. Raises ConfigError with the reason if that fails or two distributions claim the name."""
        if len(self.claims) > 1:
            raise ConfigError(f"{self.name}: {twice(self.claims)}; uninstall one of them")
        try:
            return self.claims[0].load()
        except Exception as error:  # a plugin's module may raise anything; the reason is passed on
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(f"{self.name}: the plugin {self.value} fails to import: {reason}") from error


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
        raise ConfigError(f"no plugin '{name}' among the {kind}; nearest: {', '.join(near)} (see 'dxmi plugins')")
    return found[name].load()


def name_of(group: str, class_path: str) -> str:
    """The name under which ``module.Class`` is installed. Raises ConfigError if it is not."""
    for name, plugin in installed(group).items():
        if plugin.value.replace(":", ".") == class_path:
            return name
    raise ConfigError(f"{class_path} is not installed under any name in {group}")


def twice(points: list[EntryPoint] | tuple[EntryPoint, ...]) -> str:
    """The complaint about a name claimed more than once."""
    owners = [point.dist.name if point.dist else "?" for point in points]
    return f"claimed twice, by {' and '.join(owners)}"


def imported_problem(plugin: Plugin) -> str | None:
    """Why the plugin cannot be imported, or None."""
    try:
        plugin.load()
    except ConfigError as error:
        return str(error).split(": ", 1)[1]
    return None


def file_problem(point: EntryPoint) -> str | None:
    """Why the entry point cannot work as far as its file tells without being imported, or None."""
    spec = find_file(point.module)
    if spec is None:
        return f"no module {point.module}"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except SyntaxError as error:
        return f"{point.module}, line {error.lineno}: {error.msg}"
    defined = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    others = [n for n in tree.body if not isinstance(n, ast.ClassDef | ast.FunctionDef | ast.Expr)]
    names = {n.id for o in others for n in ast.walk(o) if isinstance(n, ast.Name)}
    aliases = {
        a.asname or a.name for o in others for n in ast.walk(o) if isinstance(n, ast.ImportFrom) for a in n.names
    }
    return None if {point.attr, "*"} & (defined | names | aliases) else f"{point.module} defines no {point.attr}"


def find_file(module: str) -> ModuleSpec | None:
    """Where a dotted module lies, found without importing its parents."""
    path, spec = None, None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = find_spec(name) if path is None else PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec
