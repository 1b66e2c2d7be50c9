"""The house of dxmi, measured from its imports: modules a room, arrows between rooms, circles, lengths, documentation.

``python tests/rooms.py`` prints it. Imports inside functions and for type checkers count as any others.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASES = {"dxmi": ROOT / "dxmi", "dxmi_plugins": ROOT / "plugins" / "dxmi_plugins"}
FLOORS = [  # the highest first; rooms on one floor know nothing of each other
    {"dxmi.__main__", "dxmi.testing"},
    {"dxmi.cli"},
    {"dxmi.training"},
    {"dxmi.evaluation", "dxmi.pretraining"},
    {"dxmi.game", "dxmi.runs"},
    {"dxmi_plugins.samplers"},
    {"dxmi_plugins.energies", "dxmi_plugins.evaluators"},
    {"dxmi_plugins.backbones", "dxmi_plugins.teachers"},
    {"dxmi_plugins.schedulers"},
    {"dxmi.pipelines", "dxmi.chains", "dxmi.data"},
    {"dxmi.config"},
    {"dxmi.api"},
    {"dxmi.screen"},
]


def modules() -> dict[str, Path]:
    """Every module by its dotted name; packages by their folder's."""
    found = {}
    for top, base in BASES.items():
        for path in base.rglob("*.py"):
            name = ".".join((top, *path.relative_to(base).with_suffix("").parts))
            found[name.removesuffix(".__init__")] = path
    return found


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each one imports; what a folder's ``__init__`` offers is imported from where it is defined."""
    edges = {}
    for name, path in known.items():
        if path.name == "__init__.py":
            continue
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = name.split(".")[: -node.level] if node.level else []
                place = ".".join([*above, *filter(None, [node.module])])
                wanted |= {offered(f"{place}.{alias.name}", known) for alias in node.names}
        edges[name] = {
            module for module in map(lambda full: longest(full, known), wanted) if module not in (None, name)
        }
    return edges  # type: ignore[return-value]


def offered(name: str, known: dict[str, Path]) -> str:
    """Where a name that a folder's ``__init__`` offers comes from; others as they are."""
    folder, _, attribute = name.rpartition(".")
    if name in known or folder not in known or known[folder].name != "__init__.py":
        return name
    stub = known[folder].with_suffix(".pyi")
    for node in ast.parse((stub if stub.exists() else known[folder]).read_text()).body:
        if isinstance(node, ast.ImportFrom) and attribute in {alias.asname or alias.name for alias in node.names}:
            place = f"{folder}.{node.module}" if node.level else str(node.module)
            return offered(f"{place}.{attribute}", known)
    return name


def longest(name: str, known: dict[str, Path]) -> str | None:
    """The module that a dotted name lies in; None where it is none of ours."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def room(module: str) -> str:
    """The folder of the core, or the shelf, that a module lies in."""
    return ".".join(module.split(".")[:2])


def arrows(edges: dict[str, set[str]]) -> Counter[tuple[str, str]]:
    """How many imports go from one room to another."""
    return Counter(
        (room(a), room(b)) for a, into in edges.items() for b in into if room(a) != room(b) and room(b) != "dxmi"
    )


def upward(between: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that do not go to a lower floor."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    return [(a, b) for a, b in between if floor[a] >= floor[b]]


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that all lead to each other."""
    reach = {name: reached(name, edges) for name in edges}
    loops = {frozenset(m for m in reach[name] if name in reach.get(m, ())) for name in edges if name in reach[name]}
    return [set(loop) for loop in loops]


def reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    """All modules that one leads to by one arrow or more."""
    seen: set[str] = set()
    left = list(edges.get(start, ()))
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += edges.get(name, ())
    return seen


def functions(path: Path) -> list[tuple[str, int]]:
    """Every function of a file and how many lines it has, its docstring aside."""
    sizes = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            about = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) is not None else 0
            sizes.append((f"{path.relative_to(ROOT)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1 - about))
    return sizes


def undocumented(path: Path) -> list[str]:
    """Public functions, classes and methods of a file that have no docstring, or an argument or result without type."""
    missing = []

    def look(body: list[ast.stmt], inside: str) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            name = f"{inside}{node.name}"
            if ast.get_docstring(node) is None and not overload(node):
                missing.append(f"{name}: no docstring")
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{name}.")
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if node.returns is None or any(a.annotation is None for a in given if a.arg not in ("self", "cls")):
                missing.append(f"{name}: no types")

    look(ast.parse(path.read_text()).body, f"{path.relative_to(ROOT)}:")
    return missing


def overload(node: ast.stmt) -> bool:
    """Whether it is one of several signatures of a function."""
    return any(getattr(mark, "id", "") == "overload" for mark in getattr(node, "decorator_list", ()))


def main() -> int:
    """Print the house; 1 if it has circles or arrows upward."""
    known = modules()
    edges = imports(known)
    between = arrows(edges)
    for name, number in sorted(Counter(room(m) for m in known if known[m].name != "__init__.py").items()):
        into = ", ".join(f"{b.split('.')[1]} {n}" for (a, b), n in sorted(between.items()) if a == name)
        print(f"{name:<25} {number:>3} modules{' -> ' * bool(into)}{into}")
    lines = max((len(path.read_text().splitlines()), str(path.relative_to(ROOT))) for path in known.values())
    function = max((length, name) for path in known.values() for name, length in functions(path))
    missing = [line for path in known.values() for line in undocumented(path)]
    loops, up = circles(edges), upward(between)
    print(f"{len(known)} modules, {len(between)} arrows between rooms, {sum(between.values())} imports across rooms")
    print(f"longest file {lines[0]} ({lines[1]}), longest function {function[0]} ({function[1]})")
    print(f"circles {len(loops)}, upward arrows {len(up)}, undocumented or untyped {len(missing)}")
    for line in (*map(str, loops), *map(str, up), *missing):
        print(line)
    return int(bool(loops or up))


if __name__ == "__main__":
    sys.exit(main())
