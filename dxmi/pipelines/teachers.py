"""Families of pretrained pipelines, found by entry point in the group ``dxmi.teachers``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from dxmi.api import ConfigError, TeacherFamily
from dxmi.api.errors import require
from dxmi.config import plugins

GROUP = "dxmi.teachers"


def families() -> dict[str, TeacherFamily]:
    """The installed families by name; one that cannot be used is left out with a warning."""
    loaded: dict[str, TeacherFamily] = {}
    for name, plugin in plugins.installed(GROUP).items():
        try:
            family = plugin.load()()
            require(isinstance(family, TeacherFamily), name, f"{plugin.value} lacks members of dxmi.api.TeacherFamily")
            loaded[name] = family
        except (ConfigError, TypeError) as error:
            warnings.warn(f"teachers: {error}", stacklevel=2)
    return loaded


def pipeline_names(known: Iterable[TeacherFamily]) -> str:
    """The classes of pipelines that these families take, for messages."""
    return ", ".join(dict.fromkeys(kind for family in known for kind in family.pipelines))


def family_of(name: str, kind: str | None, pipeline: Any) -> TeacherFamily:
    """The family of a pipeline.

    Args:
        name: what messages call the pipeline
        kind: the name of its class; None where it brings that itself, and may be of any family
        pipeline: loaded, or its parts alone

    Raises:
        ConfigError: it is of none, or of several
    """
    known = families()
    taking = {key: f for key, f in known.items() if (kind is None or kind in f.pipelines) and f.takes(pipeline)}
    if len(taking) > 1:
        raise ConfigError("teacher", f"{name} is taken by {' and by '.join(taking)}", "uninstall one of these families")
    if not taking:
        network = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
        networks = ", ".join(dict.fromkeys(family.networks for family in known.values()))
        raise ConfigError("teacher", f"this {type(network).__name__} is not supported", f"supported are {networks}")
    return next(iter(taking.values()))
