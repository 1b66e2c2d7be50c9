"""How the players learn: rates, optimiser, averages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dxmi.api.errors import require


@dataclass(kw_only=True)
class ClipConfig:
    """Largest gradient norm of each player; null does not clip.

    The keys stand below ``clip`` in files of ``dxmi train``.

    Args:
        energy: of the energy
        sampler: of the sampler
        value: of a separate value network
        score: of the network of score distillation

    Raises:
        ConfigError: a value is out of range
    """

    energy: float | None = None
    sampler: float | None = None
    value: float | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        for key, limit in vars(self).items():
            require(limit is None or limit > 0, f"clip.{key}", f"{limit} is not positive", "null does not clip")


@dataclass(kw_only=True)
class RatesConfig:
    """Learning rates.

    They stand below ``lr`` in files of ``dxmi train``.

    Args:
        energy: of the energy
        sampler: of the sampler's network
        std: of the logarithms of its standard deviations
        value: of a separate value network; null means the energy's
        score: of the network of score distillation (``game.distil``); null means the energy's

    Raises:
        ConfigError: a value is out of range
    """

    energy: float = 3e-4
    sampler: float = 1e-5
    std: float = 1e-3
    value: float | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        for key, rate in vars(self).items():
            require(rate is None or rate > 0, f"lr.{key}", f"{rate} is not positive")


@dataclass(kw_only=True)
class LearningConfig:
    """How the players learn.

    The keys stand at the top of files of ``dxmi train``.

    Args:
        lr: learning rates
        optimizer: a class of torch.optim
        betas: Adam-like optimisers' betas; null for an optimiser without them
        clip: largest gradient norm of each player; null does not clip
        decay: none keeps the learning rates, cosine lowers them to zero over the run
        ema: decay of the moving average of the sampler's weights (and of the value's, where the sampler follows its
            gradient), which is what gets evaluated and exported
        ema_ramp: whether that decay rises to its value, as (1 + n)/(10 + n) in the n-th update, so that the start is
            soon forgotten

    Raises:
        ConfigError: a value is out of range
    """

    lr: RatesConfig = field(default_factory=RatesConfig)
    optimizer: str = "Adam"
    betas: tuple[float, float] | None = (0.0, 0.9)
    clip: ClipConfig = field(default_factory=lambda: ClipConfig(sampler=0.1))
    decay: Literal["none", "cosine"] = "none"
    ema: float = 0.99
    ema_ramp: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.ema < 1, "ema", f"{self.ema} is not in [0, 1)")
        require(all(0 <= b < 1 for b in self.betas or ()), "betas", f"{self.betas} are not in [0, 1)")
