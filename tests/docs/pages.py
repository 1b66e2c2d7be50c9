"""What the pages hold: code blocks with the comment before each, links, tables."""

import re
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
READ = [*PAGES, ROOT / "CHANGELOG.md", *(ROOT / "examples" / part / "README.md" for part in ("", "plugin", "gpu"))]
GENERATED = re.compile(r"<!-- from here on written by .*?<!-- up to here written by [^\n]*", re.S)
FENCE = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)


@dataclass
class Block:
    """A code block. A comment that no reader sees may stand on the line before it, ``KIND: WHY``:

    not run: why nothing can be tried; checked, not built: a YAML file whose keys are checked and no more;
    in tests: options that make its commands small.
    """

    page: Path
    line: int
    language: str
    text: str
    kind: str
    why: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def by_hand(page: Path) -> str:
    """A page without what docs/generate.py writes."""
    return GENERATED.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())


def blocks(page: Path) -> list[Block]:
    """The code blocks that were written by hand."""
    text = by_hand(page)
    found = []
    for match in FENCE.finditer(text):
        kind, _, why = (match[1] or "").partition(": ")
        found.append(Block(page, text.count("\n", 0, match.start(2)) + 1, match[2], match[3], kind, why))
    return found


def commands(block: Block) -> list[str]:
    """The command lines of a shell block, without comments; of a console what follows ``$``."""
    text = block.text.replace("\\\n", " ")
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")] if block.language == "console" else None
    lines = text.splitlines() if lines is None else lines
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def inline(page: Path) -> list[str]:
    """What stands between single backticks, outside code blocks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", by_hand(page)))


def links(page: Path) -> list[str]:
    """The targets of links and images, outside code."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs both make them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


def table(page: Path, start: str) -> dict[str, list[str]]:
    """The rows of the first table whose heading row begins with ``start``, by their first cell, or the first two."""
    lines = page.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    rows: dict[str, list[str]] = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = [cell.strip(" *`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        rows[f"{name} {cells[0]}" if name in rows or f"{name} {cells[0]}" in rows else name] = cells
    return rows
