"""Activations by name, for energies that offer a choice."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dxmi.api import ConfigError

Activation = Literal["silu", "gelu", "softplus", "tanh", "elu", "relu", "leaky_relu"]
MODULES: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "relu": nn.ReLU,
}


def act(name: Activation) -> nn.Module:
    """A fresh module; leaky_relu has the slope 0.2 of the paper's network.

    Raises:
        ConfigError: there is no such activation
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(0.2)
    if name not in MODULES:
        raise ConfigError(f"activation: '{name}' is none of {', '.join(MODULES)}, leaky_relu")
    return MODULES[name]()
