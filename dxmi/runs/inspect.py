"""What a pipeline is, and the config that would fine-tune it (``dxmi inspect``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dxmi.api import ConfigError, FromPipeline, Sampler
from dxmi.api.errors import first_line
from dxmi.config import plugins
from dxmi.runs.folder import Run


def inspect(source: str | Path | Run, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """What a pipeline is, read off its configs and not its weights, and a config that would fine-tune it.

    Args:
        source: folder or hub id of a diffusers pipeline, or a run that left one
        trust_remote_code: whether Python files that it brings may run

    Returns:
        what the first kind of sampler that takes it says, as JSON types; ``config`` among it is a whole run, for
        ``dxmi.train`` once ``data.path`` is given

    Raises:
        ConfigError: no installed sampler takes it
    """
    run = Run.find(source)
    place = os.fspath(source if run is None else run.pipeline_folder)
    refusals: list[ConfigError] = []
    for plugin in plugins.installed("dxmi.samplers").values():
        kind: type[Sampler] | None = plugin.load() if plugin.problem is None else None
        if kind is None or not issubclass(kind, FromPipeline):
            continue
        try:
            found = kind.describe(place, trust_remote_code)
        except ConfigError as error:
            refusals.append(error)
            continue
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ConfigError(Path(place), f"a file of it is missing or damaged: {first_line(error)}") from error
        found["config"]["sampler"] = {"name": plugin.name, **found["config"]["sampler"]}
        return found
    raise next(iter(refusals), ConfigError(Path(place), "no installed sampler is made from pipelines"))
