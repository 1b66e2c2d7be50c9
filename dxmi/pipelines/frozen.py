"""Leaving frozen weights out of a network's state."""

from __future__ import annotations

from typing import Any

from torch import nn


def matches(name: str, ends: tuple[str, ...]) -> bool:
    """Whether a dotted name ends with one of these whole parts."""
    return f".{name}".endswith(tuple(f".{end}" for end in ends))


def keep_what_learns(module: nn.Module) -> None:
    """Leave what is frozen out of the module's ``state_dict``: the teacher's own files have it."""
    module.register_state_dict_post_hook(_drop_frozen)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_post_hook(_miss_nothing_frozen)  # type: ignore[no-untyped-call]


def _frozen(module: nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters() if not p.requires_grad]


def _drop_frozen(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in _frozen(module):
        del state[prefix + name]


def _miss_nothing_frozen(module: nn.Module, found: Any) -> None:
    frozen = tuple(_frozen(module))
    found.missing_keys[:] = [key for key in found.missing_keys if not matches(key, frozen)]
