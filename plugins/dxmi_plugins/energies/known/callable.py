"""Any function or network of a user's as an energy (TOOLBOX row 1)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Energy, randn


class CallableEnergy(Energy):
    """``E(x) = function(x)``; the parameters of an nn.Module are this energy's own.

    Args:
        function: maps x (B,*S) to energies (B,), one a row: "module:attribute", or a Python callable
        shape: S, the event shape
        log_z: log of the integral of exp(-E), where it is known

    Raises:
        ConfigError: the function cannot be imported, fails, or does not return (B,)
    """

    def __init__(self, function: str | Callable[[Tensor], Tensor], shape: list[int], log_z: float | None = None):
        super().__init__()
        if any(size < 1 for size in shape):
            raise ConfigError("shape", f"{shape} has a size that is not positive")
        self.function = _found(function) if isinstance(function, str) else function
        self.event_shape, self.log_z = tuple(shape), log_z
        self._try()

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S) -> (B,)."""
        return self.function(x)

    @torch.no_grad()
    def _try(self) -> None:
        like = next(chain(self.parameters(), self.buffers()), torch.empty(0))
        x = randn((2, *(self.event_shape or ())), like, Generator().manual_seed(0))
        try:
            e: Any = self.function(x)
        except Exception as error:  # it is the user's and may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError("function", f"it fails on x of shape {tuple(x.shape)}: {reason}") from error
        found = f"shape {tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__
        if found != "shape (2,)":
            raise ConfigError(
                "function", f"it returns {found} for x of shape {tuple(x.shape)}", "return one energy a row"
            )


def _found(path: str) -> Callable[[Tensor], Tensor]:
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ConfigError("function", f"'{path}' is not of the form module:attribute")
    try:
        found = attrgetter(attribute)(import_module(module))
    except AttributeError as error:
        raise ConfigError("function", f"{module} has no attribute {attribute}") from error
    except Exception as error:  # a module may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            "function", f"{module} cannot be imported: {reason}", "is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise ConfigError("function", f"{path} is no function but of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]
