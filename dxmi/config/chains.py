"""The keys of ``dxmi sample CONFIG``."""

from __future__ import annotations

from dataclasses import dataclass

from dxmi.api import Energy, Sampler
from dxmi.api.errors import require


@dataclass(kw_only=True)
class ChainsConfig:
    """Every key of a YAML file for ``dxmi sample``.

    They stand at the top of the file. It describes chains on a known density, where nothing learns.

    Args:
        energy: plugin, a known density
        sampler: plugin, the chain
        value: plugin, an energy with time for a chain that needs one at t < T; null takes the density's own closed form
        seed: of starts and noise
        chains: number of chains; the last state of each is a sample
        draws: at most so many states of a chain are kept for the diagnostics, evenly spaced over its second half
        watch: number of chains whose states are kept for the diagnostics

    Raises:
        ConfigError: a value is out of range
    """

    energy: Energy
    sampler: Sampler
    value: Energy | None = None
    seed: int = 0
    chains: int = 1000
    draws: int = 500
    watch: int = 64

    def __post_init__(self) -> None:
        for key in ("chains", "draws", "watch"):
            require(getattr(self, key) >= 1, key, f"{getattr(self, key)} is not positive")
