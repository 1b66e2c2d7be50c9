"""From a command's options and overrides to its checked config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dxmi.api import ConfigError


def configured(kind: Any, options: argparse.Namespace, overrides: list[str]) -> Any:
    """The checked config, or None if help or the resolved config was printed instead."""
    import yaml

    from dxmi.config import Checked, read_yaml
    from dxmi.config.help_text import help_text
    from dxmi.config.run_file import without_format

    if options.config and overrides and not Path(options.config).is_file():
        raise ConfigError(options.config, "no such file", "give the config first, then --key VALUE")
    if options.help:
        print(options.own_help())
        print(help_text(kind, read_yaml(options.config, overrides) if options.config else {}, options.command))
        return None
    if options.config is None:
        raise ConfigError(options.command, "give a config file, such as configs/digits_t4.yaml")
    _, given = without_format(read_yaml(options.config, overrides), Path(options.config))
    for key, command in {"chains": "sample", "sampler": "train", "unet": "pretrain", "objective": "pretrain"}.items():
        if key in given and command != options.command and key not in kind.__dataclass_fields__:
            raise ConfigError(options.config, f"is for 'dxmi {command}'")
    config = Checked(kind, given)
    if options.print_config:
        print(yaml.safe_dump(config.resolved, sort_keys=False), end="")
        return None
    return config


def quiet() -> None:
    """Leave the screen to dxmi's own progress bar."""
    import datasets
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are told in dxmi's own line
    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
