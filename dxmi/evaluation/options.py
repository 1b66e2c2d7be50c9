"""What ``dxmi.evaluate`` is told beside its source and reference, checked before anything is drawn."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dxmi.api import ConfigError, Evaluator
from dxmi.api.errors import require
from dxmi.api.noise import CHUNK
from dxmi.config import build_plugin
from dxmi.evaluation.stored_images import Given, path_of

OWN = {"metrics": "metrics", "extractor": "extractor", "samples": "n", "reference_statistics": "reference"}
"""Options of an evaluator that ``dxmi.evaluate`` has parameters for, and these parameters."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How samples are made or read, what measures them and where the report goes; ``dxmi.evaluate`` explains each.

    Raises:
        ConfigError: one means nothing; the key is its name
    """

    metrics: Sequence[str] | None = None
    evaluator: str | dict[str, Any] = "fidelity"
    extractor: str | None = None
    n: int | None = None
    seeds: Sequence[int] = ()
    batch_size: int | None = None
    schedulers: Sequence[str] = ()
    steps: Sequence[int] = ()
    prompts: Sequence[str] = ()
    column: str = "image"
    label: str | None = None
    floor: Given | None = "halves"
    steps_like: str | None = None
    out: str | Path | None = None

    def __post_init__(self) -> None:
        check_folder(self.out)
        for key in ("schedulers", "prompts", "metrics"):
            check_list(key, getattr(self, key), str, "names")
        for key in ("seeds", "steps"):
            check_list(key, getattr(self, key), Integral, "whole numbers")
        for key in ("n", "batch_size"):
            number = getattr(self, key)
            require(number is None or isinstance(number, Integral), key, f"{number!r} is no whole number")
        n, size, seeds, steps = self.n, self.batch_size, list(self.seeds), list(self.steps)
        require(n is None or n >= 2, "n", "give at least 2")
        require(all(0 <= seed < 2**32 for seed in seeds), "seeds", f"{seeds} are not all between 0 and 2^32 - 1")
        require(size is None or 1 <= size <= CHUNK, "batch_size", f"{size} is not between 1 and {CHUNK}")
        require(all(k >= 1 for k in steps), "steps", f"{steps} are not all positive")
        like, asked = self.steps_like, self.metrics is None or "fid" in self.metrics
        require(like is None or isinstance(like, str), "steps_like", f"{like!r} is no name of a solver")
        require(like is None or asked, "steps_like", "it goes by a Fréchet distance", "take fid into metrics")

    @property
    def folder(self) -> Path | None:
        """Where the report and the images go; None keeps neither."""
        return None if self.out is None else Path(self.out)

    @property
    def halves(self) -> bool:
        """Whether the floor is one half of the reference against the other."""
        return isinstance(self.floor, str) and self.floor == "halves"

    def refuse(self, why: str, *keys: str) -> None:
        """Raise ConfigError if one of these was given."""
        for key in keys:
            require(not getattr(self, key), key, why, "leave it out")

    def judge(self, statistics: str | None) -> Evaluator:
        """The evaluator, with what ``OWN`` lists of it; ``statistics``: a file of published ones.

        Raises:
            ConfigError: there is no such evaluator, it has no such option, or one of ``OWN`` comes with it
        """
        plugin = {"name": self.evaluator} if isinstance(self.evaluator, str) else self.evaluator
        for key, name in OWN.items():
            require(key not in plugin, f"evaluator.{key}", f"give it as {name}")
        metrics = None if self.metrics is None else list(self.metrics)
        own = {
            "metrics": metrics,
            "extractor": self.extractor,
            "samples": self.n,
            "reference_statistics": statistics,
        }
        given = {key: value for key, value in own.items() if value is not None}
        try:
            return build_plugin(Evaluator, {**plugin, **given}, "evaluator")  # type: ignore[type-abstract]
        except ConfigError as error:
            raise own_name(error) from error


def own_name(error: ConfigError) -> ConfigError:
    """An error of ``evaluator.KEY`` as one of the parameter that ``dxmi.evaluate`` has for that key."""
    for key, name in OWN.items():
        error = error.moved(f"evaluator.{key}", name)
    return error


@contextmanager
def judging(judge: Evaluator) -> Iterator[None]:
    """Errors of an evaluator at work, which name its own options, by the names that ``dxmi.evaluate`` has for them."""
    try:
        yield
    except ConfigError as error:
        known = inspect.signature(type(judge).__init__).parameters
        raise own_name(error.under("evaluator")) if error.key in known else error from error


def check_list(key: str, values: Any, kind: type, what: str) -> None:
    """Raise ConfigError if an option is no list of ``what``, or has something twice; only metrics may be None."""
    if key == "metrics" and values is None:
        return
    fits = isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)
    require(fits, key, f"{values!r} is no list of {what}", "give one")
    once = key == "prompts" or len(set(values)) == len(values)
    require(once, key, f"{', '.join(map(str, values))} are not different ones")


def check_folder(out: Any) -> None:
    """Raise ConfigError unless ``out`` is None or a folder that can be written; it need not be there."""
    if out is None:
        return
    require(isinstance(out, str | Path), "out", f"{out!r} is no path of a folder")
    folder = Path(out)
    there = next(part for part in [folder, *folder.absolute().parents] if part.exists())
    require(there.is_dir(), "out", f"{there} is a file", "give a folder")
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError("out", f"nothing can be written in {there}: {error.strerror}") from error


def published(reference: Given) -> str | None:
    """The file of a reference that is published statistics; None where it is images."""
    path = str(path_of(reference))
    if not path.endswith(".npz"):
        return None
    extra = sorted(set(reference) - {"path"}) if isinstance(reference, Mapping) else []
    require(not extra, f"reference.{''.join(extra[:1])}", "published statistics have no options", "leave it out")
    return path
