"""The one error that means: what the user gave is wrong. Standard library only: the command line starts fast."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(ValueError):
    """The message is one line that names the key or file and says what to do; the command line exits with status 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def check_some(key: str, given: Sequence[str] | None, known: Sequence[str]) -> None:
    """Raise ConfigError, which names the option ``key``, unless ``given`` is None or some of ``known``."""
    if given is None:
        return
    unknown = [name for name in given if name not in known]
    if not given:
        raise ConfigError(f"{key}: the list is empty; give some of {', '.join(known)}")
    if unknown:
        raise ConfigError(f"{key}: {unknown[0]} is not one of {', '.join(known)}")
