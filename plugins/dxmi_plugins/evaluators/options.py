"""What evaluators may be asked for."""

from __future__ import annotations

from collections.abc import Sequence

from dxmi.api import ConfigError


def check_some(key: str, given: Sequence[str] | None, known: Sequence[str]) -> None:
    """Raise ConfigError, which names the option ``key``, unless ``given`` is None or some of ``known``."""
    if given is None:
        return
    unknown = [name for name in given if name not in known]
    if not given:
        raise ConfigError(f"{key}: the list is empty; give some of {', '.join(known)}")
    if unknown:
        raise ConfigError(f"{key}: {unknown[0]} is not one of {', '.join(known)}")
