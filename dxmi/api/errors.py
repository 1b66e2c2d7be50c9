"""The one error that means: what the user gave is wrong. Standard library only: the command line starts fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self


class ConfigError(ValueError):
    """What the user gave is wrong. Printed it is one line, ``key: reason; cure``; the exit status is then 2.

    Args:
        key: what is wrong: the full path of a parameter, as ``sampler.guidance`` or ``data.label``, by its name in
            Python and YAML; or a file, a folder or what stands for one, as a Path
        reason: what is wrong with it
        cure: what to do; empty where the reason says it
    """

    def __init__(self, key: str | Path, reason: str = "", cure: str = ""):
        super().__init__(key, reason, cure)  # all three, so that it can be pickled
        self.key, self.reason, self.cure = str(key), reason, cure
        self.is_place = isinstance(key, Path)

    def __str__(self) -> str:
        return "; ".join(filter(None, [": ".join(filter(None, [self.key, self.reason])), self.cure]))

    def named(self, key: str) -> Self:
        """The same of another key."""
        return type(self)(key, self.reason, self.cure)

    def under(self, place: str) -> Self:
        """The same of the parameter that is called ``key`` in ``place``: ``under("sampler")`` of ``tau``."""
        return self if self.is_place else self.named(".".join(filter(None, [place, self.key])))

    def moved(self, old: str, new: str) -> Self:
        """The same where ``old`` and what is below it is called ``new``."""
        inside = not self.is_place and (self.key == old or self.key.startswith(f"{old}."))
        return self.named(f"{new}{self.key[len(old) :]}".lstrip(".")) if inside else self


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def require(condition: bool, key: str | Path, reason: str = "", cure: str = "") -> None:
    """Raise ConfigError with these unless ``condition`` holds."""
    if not condition:
        raise ConfigError(key, reason, cure)


def check_some(key: str, given: Sequence[str] | None, known: Sequence[str]) -> None:
    """Raise ConfigError, which names the option ``key``, unless ``given`` is None or some of ``known``."""
    if given is None:
        return
    unknown = [name for name in given if name not in known]
    if not given:
        raise ConfigError(key, "the list is empty", f"give some of {', '.join(known)}")
    if unknown:
        raise ConfigError(key, f"{unknown[0]} is not one of {', '.join(known)}")
