"""Options of an evaluation, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dxmi.api import ConfigError, Evaluator
from dxmi.api.errors import require
from dxmi.api.noise import CHUNK
from dxmi.config import build_plugin
from dxmi.evaluation.stored_images import Given, path_of

OWN = {"metrics": "--metrics", "extractor": "--extractor", "samples": "-n", "reference_statistics": "--reference"}
"""Options of an evaluator that have names of their own here."""


def check_lists(names: Mapping[str, Sequence[str]], numbers: Mapping[str, Sequence[int]]) -> None:
    """Raise ConfigError if one of these options is no list of names or of whole numbers, or has something twice."""
    kinds: tuple[tuple[Mapping[str, Any], type], ...] = ((names, str), (numbers, Integral))
    for given, kind in kinds:
        for flag, values in given.items():
            fits = isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)
            require(
                fits, f"--{flag}", f"{values!r} is no list of {'names' if kind is str else 'whole numbers'}", "give one"
            )
            once = flag == "prompt" or len(set(values)) == len(values)
            require(once, f"--{flag}", f"{', '.join(map(str, values))} are not different ones")


def check(n: int | None, seeds: Sequence[int], batch_size: int | None, steps: Sequence[int]) -> None:
    """Raise ConfigError for numbers that mean nothing."""
    for flag, number in {"-n": n, "--batch-size": batch_size}.items():
        require(number is None or isinstance(number, Integral), flag, f"{number!r} is no whole number")
    require(n is None or n >= 2, "n", "give at least 2")
    require(all(0 <= seed < 2**32 for seed in seeds), "seeds", f"{list(seeds)} are not all between 0 and 2^32 - 1")
    require(batch_size is None or 1 <= batch_size <= CHUNK, "batch_size", f"{batch_size} is not between 1 and {CHUNK}")
    require(all(k >= 1 for k in steps), "steps", f"{list(steps)} are not all positive")


def folder_of(out: Any) -> Path:
    """The folder to write, which need not be there; raises ConfigError if it cannot be."""
    require(isinstance(out, str | Path), "out", f"{out!r} is no path of a folder")
    folder = Path(out)
    there = next(part for part in [folder, *folder.absolute().parents] if part.exists())
    require(there.is_dir(), "out", f"{there} is a file", "give a folder")
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError("out", f"nothing can be written in {there}: {error.strerror}") from error
    return folder


def published(reference: Given) -> str | None:
    """The file of a reference that is published statistics; None where it is images."""
    path = str(path_of(reference))
    if not path.endswith(".npz"):
        return None
    extra = sorted(set(reference) - {"path"}) if isinstance(reference, Mapping) else []
    require(not extra, f"--reference.{''.join(extra[:1])}", "published statistics have no options", "leave it out")
    return path


def built(evaluator: str | dict[str, Any], **options: Any) -> Evaluator:
    """The evaluator with those of its ``OWN`` options that are not None.

    Raises:
        ConfigError: there is no such evaluator, it has no such option, or one of ``OWN`` comes with it
    """
    plugin = {"name": evaluator} if isinstance(evaluator, str) else evaluator
    for key, flag in OWN.items():
        require(key not in plugin, f"--evaluator.{key}", f"give it as {flag}")
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    given = {key: value for key, value in plain.items() if value is not None}
    return build_plugin(Evaluator, {**plugin, **given})  # type: ignore[type-abstract]
