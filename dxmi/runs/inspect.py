"""What a pipeline is, and the config that would fine-tune it (``dxmi inspect``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from dxmi.api import ConfigError, Sampler
from dxmi.api.errors import first_line, require
from dxmi.config import plugins


def describe(source: str, trust_remote_code: bool) -> dict[str, Any]:
    """What the first kind of sampler that takes it says of a pipeline; its ``config`` is a whole run.

    Raises:
        ConfigError: no installed sampler takes it
    """
    refusals: list[ConfigError] = []
    for plugin in plugins.installed("dxmi.samplers").values():
        kind: type[Sampler] | None = plugin.load() if plugin.problem is None else None
        if kind is None or not kind.pipeline:
            continue
        try:
            found = kind.describe(source, trust_remote_code)
        except ConfigError as error:
            refusals.append(error)
            continue
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ConfigError(source, f"a file of it is missing or damaged: {first_line(error)}") from error
        found["config"]["sampler"] = {"name": plugin.name, **found["config"]["sampler"]}
        return found
    raise next(iter(refusals), ConfigError(source, "no installed sampler is made from pipelines"))


def inspect(source: str, trust_remote_code: bool, json_file: Path | None, config_file: Path | None) -> None:
    """Print the description and the config as YAML, and write them where asked to.

    Raises:
        ConfigError: it is no pipeline that can be fine-tuned, or a file exists already
    """
    for key, path in (("--json", json_file), ("--config", config_file)):
        require(path is None or not path.exists(), key, f"{path} exists", "give another file")
        require(path is None or path.parent.is_dir(), key, f"there is no folder {path and path.parent}")
    found = describe(source, trust_remote_code)
    config = yaml.safe_dump(found["config"], sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    told = {key: value for key, value in found.items() if key != "config"}
    print(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, default_flow_style=None), end="")
    print("\n# a config that fine-tunes it; data.path is yours to give\n" + config, end="")
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    if config_file is not None:
        config_file.write_text(config)
        print(f"# {config_file}: written; give data.path, and evaluators to have its figures")
