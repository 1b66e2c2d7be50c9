"""``dxmi inspect``: what a pipeline is, as YAML on the screen and in files."""

from __future__ import annotations

import argparse
import json

from dxmi.api.errors import require
from dxmi.cli.config_options import quiet


def run_inspect(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi inspect``."""
    for key, path in (("json", options.json), ("config", options.config)):
        require(path is None or not path.exists(), key, f"{path} exists", "give another file")
        require(path is None or path.parent.is_dir(), key, f"there is no folder {path and path.parent}")
    quiet()
    import yaml

    from dxmi import inspect

    style = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    description = inspect(options.pipeline, trust_remote_code=options.trust_remote_code)
    config = yaml.safe_dump(description["config"], width=100, **style)
    print(yaml.safe_dump({key: value for key, value in description.items() if key != "config"}, **style), end="")
    print("\n# a config that fine-tunes it; data.path is yours to give\n" + config, end="")
    if options.json is not None:
        options.json.write_text(json.dumps(description, indent=2) + "\n")
    if options.config is not None:
        options.config.write_text(config)
        print(f"# {options.config}: written; give data.path, and evaluators to have its figures")
