"""The keys of the replay buffer (MATH 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dxmi.api import ConfigError, GaussianSampler, Sampler
from dxmi.api.errors import require


@dataclass(kw_only=True)
class ReplayConfig:
    """Final states kept from round to round, noised to all steps for the value to learn at (MATH 4).

    Noising them again makes other states of the steps between each time, so those are not kept.

    The keys stand below ``replay`` in files of ``dxmi train``.

    Args:
        learn: td regresses the value at the noised states on successors redrawn from the sampler (MATH 4.2), besides
            what rollouts teach it; denoise fits the value's gradient to the score of the noised states (MATH 4.5): it
            takes them for draws from the density, and rollouts teach it nothing
        fill: plugin, chains on the density, as smc, whose ends fill the buffer before the first round
        refine: plugin, chains on the density, as mala, that carry the sampler's own ends on before they are kept
        size: number of states kept, the newest ones
        batch: states in one optimiser step
        steps: optimiser steps a round
        every: rounds between two times that the sampler's own ends are kept; null keeps none
        priority: states are drawn in proportion to ``exp(-priority*E)``; 0 draws all alike

    Raises:
        ConfigError: a value is out of range, or two keys exclude each other
    """

    learn: Literal["td", "denoise"] = "td"
    fill: Sampler | None = None
    refine: Sampler | None = None
    size: int = 10_000
    batch: int = 256
    steps: int = 1
    every: int | None = None
    priority: float = 0.0

    def __post_init__(self) -> None:
        for key in ("size", "batch", "steps"):
            require(getattr(self, key) >= 1, f"replay.{key}", f"{getattr(self, key)} is not positive")
        require(
            self.every is None or self.every >= 1, "replay.every", f"{self.every} is not a number of rounds", "give 1"
        )
        require(self.priority >= 0, "replay.priority", f"{self.priority} is negative")
        require(
            self.fill is not None or self.every is not None,
            "replay",
            "it stays empty",
            "name chains to fill it, or every",
        )
        require(self.refine is None or self.every is not None, "replay.refine", "no own ends are kept", "give every")
        require(
            self.learn == "td" or self.priority == 0,
            "replay.priority",
            "denoise takes the states for draws from the density",
            "leave it at 0",
        )
        require(
            self.learn == "td" or self.fill is not None or self.refine is not None,
            "replay.learn",
            "denoise takes the states for draws from the density",
            "name chains that fill or refine",
        )

    def check(self, tau: float) -> None:
        """Raise ConfigError if its chains follow a value of their own or are not at the sampler's temperature."""
        for key in ("fill", "refine"):
            chain = getattr(self, key)
            if isinstance(chain, GaussianSampler):
                raise ConfigError(
                    f"replay.{key}", f"{type(chain).__name__} has to learn itself", "take chains, as mala"
                )
            if chain is not None and chain.tau != tau:
                raise ConfigError(f"replay.{key}.tau", f"{chain.tau} is not the sampler's, {tau}")
        if self.refine is not None and not self.refine.stationary:
            kind = type(self.refine).__name__
            raise ConfigError("replay.refine", f"{kind} changes the density", "take chains that keep it, as mala")
