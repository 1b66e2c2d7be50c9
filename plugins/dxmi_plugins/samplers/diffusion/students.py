"""The network of a student: the teacher's own, one of the same architecture, or adapters beside it."""

from __future__ import annotations

from typing import Any

from dxmi.api import ConfigError

from .lora import Lora, add_adapters


def check_student(weights: str, lora: Lora | None, precision: str) -> None:
    """Raise ConfigError if these options are not for each other."""
    if lora is not None and weights == "random":
        raise ConfigError("lora: adapters stand beside pretrained weights; leave it out, or set weights: pretrained")
    if lora is None and precision != "float32":
        raise ConfigError(f"precision: weights that learn are float32, not {precision}; set lora, or leave it out")


def make_network(teacher: Any, random: bool, lora: Lora | None, checkpointing: bool) -> Any:
    """The student's network out of the teacher's. Raises ConfigError if it does not support what is asked for."""
    network = type(teacher).from_config(teacher.config).eval() if random else teacher
    if lora is not None:
        add_adapters(network, lora)
    if checkpointing and not network._supports_gradient_checkpointing:
        raise ConfigError(f"checkpointing: {type(network).__name__} does not support it; leave it out")
    if checkpointing:
        network.enable_gradient_checkpointing()
    return network
