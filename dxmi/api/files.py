"""Files and folders that are there whole or not at all: written beside their place, then renamed. Standard library."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A free name beside ``path`` for a file to write; the file takes its place when the block ends well.

    The name has the same ending, by which writers know the format, and is another one each time, so that two processes
    may write the same file. Missing folders are made. Where the block fails nothing is left but a file of before.

    Raises:
        OSError: the folder cannot be made, or the file cannot be renamed
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".partial-{uuid4().hex[:8]}-{path.name}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A free name beside ``path`` for a folder to make; the folder takes its place when the block ends well.

    The name is ``.NAME.partial``: what a killed process left under it goes. Missing folders above are made. Where the
    block fails nothing is left.

    Args:
        path: the folder
        replace: whether there may be one already. It is put aside as ``NAME.old`` for the moment between two renames;
            where a process was killed in that moment, the next call puts it back first.

    Raises:
        OSError: the folder above cannot be made, or the folder cannot be renamed
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, old = path.with_name(f".{path.name}.partial"), path.with_name(f"{path.name}.old")
    if replace and old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        yield draft
        if replace:
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
        draft.rename(path)
        if replace:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
