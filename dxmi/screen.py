"""What a person who waits is told: lines, notes and bars on stderr, by the main process alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, TaskID

WIDE = 200
"""characters of a table in a log file, which nobody narrows"""


def is_main_process() -> bool:
    """Whether this process is the one that speaks, also before accelerate is started."""
    return os.environ.get("RANK", "0") == "0"


class Bar(NamedTuple):
    """How far something is."""

    progress: Progress
    row: TaskID

    def advance(self, n: int) -> None:
        """It is n further."""
        self.progress.advance(self.row, n)

    def reach(self, n: int) -> None:
        """It is at n."""
        self.progress.update(self.row, completed=n)


class Screen:
    """Lines on stderr; results go to stdout. Other processes than the main one are silent."""

    def __init__(self, main: bool | None = None):
        self.main = is_main_process() if main is None else main
        self.console = Console(stderr=True, quiet=not self.main)
        self._noted: set[str] = set()

    def tell(self, line: str, style: str = "dim") -> None:
        """A line, never folded."""
        self.console.print(line, style=style, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """The same, but each line once."""
        if line not in self._noted:
            self.tell(line)
        self._noted.add(line)

    def warn(self, line: str) -> None:
        """A line that should not be overlooked."""
        self.tell(f"warning: {line}", style="yellow")

    @contextmanager
    def bar(self, task: str, total: int) -> Iterator[Bar]:
        """A bar that is gone in the end. A log file shows none."""
        shown = self.main and self.console.is_terminal
        columns = Progress.get_default_columns()
        with Progress(*columns, console=self.console, transient=True, redirect_stdout=False, disable=not shown) as bar:
            yield Bar(bar, bar.add_task(task, total=total))


def show(table: Any) -> None:
    """Print a table of rich on stdout, folded to a terminal and whole in a file."""
    console = Console()
    (console if console.is_terminal else Console(width=WIDE)).print(table)
