"""The network of a student: the teacher's own, one of the same architecture, or low-rank adapters beside it.

Adapters are LoRA's (Hu et al. 2021, arXiv:2106.09685), made by peft.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from dxmi.api import ConfigError, NetworkCall
from dxmi.pipelines import matches

NAME = "default"  # peft's, of the one set of adapters


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(kw_only=True)
class Lora:
    """Low-rank adapters: a layer's weight becomes ``W + alpha/rank * B A``, where A and B learn and W is frozen.

    Args:
        rank: of the product of the two matrices
        alpha: weight of the adapters, times the rank; null means the rank, so a weight of 1
        targets: which linear and convolution layers have adapters, by the ends of their names; null means those that
            attention projects with
    """

    rank: int = 8
    alpha: float | None = None
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError("lora.rank", f"{self.rank} is not positive")
        if self.alpha is not None and self.alpha <= 0:
            raise ConfigError("lora.alpha", f"{self.alpha} is not positive", "null means the rank")


def add_adapters(network: Any, lora: Lora) -> None:
    """Freeze the network and give it adapters in float32, which change nothing yet.

    Raises:
        ConfigError: a target is the name of no layer
    """
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    targets = ATTENTION if lora.targets is None else tuple(lora.targets)
    chosen = [name for name in layers if matches(name, targets)]
    unmatched = [] if lora.targets is None else [t for t in targets if not any(matches(name, (t,)) for name in layers)]
    if not chosen or unmatched:
        what = f"'{unmatched[0]}' names no layer" if unmatched else "attention has no layers"
        known = ", ".join(sorted({ending(name) for name in layers}))
        raise ConfigError("lora.targets", f"{what} in this {type(network).__name__}", f"name some of {known}")
    network.requires_grad_(False)
    alpha: Any = lora.rank if lora.alpha is None else lora.alpha
    inject_adapter_in_model(LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=chosen), network, NAME)
    for p in (p for p in network.parameters() if p.requires_grad):
        p.data = p.data.float()  # the frozen weights may be in half precision


def ending(name: str) -> str:
    """The last part of a layer's name, with the one before where it is a number."""
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """Inside, the network is the one that the adapters were put beside."""
    layers = [layer for layer in network.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def plain(call: NetworkCall) -> NetworkCall:
    """The same call of the network without its adapters."""

    def called(network: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
        with without_adapters(network):
            return call(network, x, timestep, cond)

    return called


def bare(network: Any) -> Any:
    """A copy of the network in float32, on its device, without adapters and with nothing of it frozen."""
    weights = {k.replace(".base_layer.", "."): w for k, w in network.state_dict().items() if ".lora_" not in k}
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced at once
        copied = type(network).from_config(network.config)
    copied.load_state_dict(weights)
    return copied.to(network.device).eval()


def merged(network: Any, base: Any = None) -> Any:
    """A network of the same class, float32, with the adapters folded into its weights; without adapters this one.

    ``base`` is the network that the adapters were put beside, in float32, where theirs is rounded; it is changed.
    """
    if not any(isinstance(layer, LoraLayer) for layer in network.modules()):
        return network
    base = bare(network) if base is None else base
    weights = base.state_dict()
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer):
            key = f"{name}.weight"
            weights[key] = weights[key].float() + layer.get_delta_weight(NAME).to(weights[key].device)  # type: ignore[operator]
    base.load_state_dict(weights)
    return base.eval()


def save_adapters(pipeline: Any, network_name: str, network: Any, folder: Path) -> None:
    """The adapters alone, as ``pipeline.load_lora_weights(folder)`` reads them.

    Raises:
        ConfigError: diffusers has no such method for this pipeline
    """
    if not hasattr(pipeline, "save_lora_weights"):
        raise ConfigError(
            "lora", f"diffusers loads no adapters into a {type(pipeline).__name__}", "export the whole of it"
        )
    layers = {
        f"{network_name}_lora_layers": get_peft_model_state_dict(network),
        f"{network_name}_lora_adapter_metadata": network.peft_config[NAME].to_dict(),
    }
    pipeline.save_lora_weights(folder, **layers)


def check_student(weights: str, lora: Lora | None, precision: str) -> None:
    """Raise ConfigError if these options are not for each other."""
    if lora is not None and weights == "random":
        raise ConfigError(
            "lora", "adapters stand beside pretrained weights", "leave it out, or set weights: pretrained"
        )
    if lora is None and precision != "float32":
        raise ConfigError("precision", f"weights that learn are float32, not {precision}", "set lora, or leave it out")


def make_network(teacher: Any, random: bool, lora: Lora | None, checkpointing: bool) -> Any:
    """The student's network out of the teacher's. Raises ConfigError if it does not support what is asked for."""
    network = type(teacher).from_config(teacher.config).eval() if random else teacher
    if lora is not None:
        add_adapters(network, lora)
    if checkpointing and not network._supports_gradient_checkpointing:
        raise ConfigError("checkpointing", f"{type(network).__name__} does not support it", "leave it out")
    if checkpointing:
        network.enable_gradient_checkpointing()
    return network
