"""The keys of ``dxmi train``."""

from __future__ import annotations

from dataclasses import dataclass, field

from dxmi.api import Energy, Evaluator, Sampler
from dxmi.api.errors import require
from dxmi.config.data import DataConfig
from dxmi.config.game import GameConfig
from dxmi.config.learning import LearningConfig
from dxmi.config.replay import ReplayConfig


@dataclass(kw_only=True)
class EveryConfig:
    """How often, in rounds.

    The keys stand below ``every`` in files of ``dxmi train``.

    Args:
        log: a line in metrics.jsonl and to the tracker
        samples: a grid of samples
        checkpoint: a checkpoint to resume from

    Raises:
        ConfigError: a value is out of range
    """

    log: int = 10
    samples: int = 200
    checkpoint: int = 400

    def __post_init__(self) -> None:
        for key, rounds in vars(self).items():
            require(rounds >= 1, f"every.{key}", f"{rounds} is not a number of rounds", "give 1 or more")


@dataclass(kw_only=True)
class ProxyConfig:
    """A cheap figure while a run learns: the first metric of the first evaluator, over fewer samples, on the average.

    It is no figure to report: ``best/`` was chosen by it. ``proxy`` of metrics.jsonl is better when lower: of a metric
    that the evaluator names in ``HIGHER`` it is the negative.

    The keys stand below ``proxy`` in files of ``dxmi train``.

    Args:
        every: rounds between two of them
        samples: how many are drawn for each, at the run's seed, so that all are from the same noise
        patience: the run stops after so many in a row that were not the best, those of ``game.warmup`` aside; null
            plays all rounds

    Raises:
        ConfigError: a value is out of range
    """

    every: int = 100
    samples: int = 1000
    patience: int | None = None

    def __post_init__(self) -> None:
        require(self.every >= 1, "proxy.every", f"{self.every} is not a number of rounds", "give 1 or more")
        require(self.samples >= 2, "proxy.samples", f"{self.samples} are too few", "give 2 or more")
        require(self.patience is None or self.patience >= 1, "proxy.patience", f"{self.patience} is not positive")


@dataclass(kw_only=True)
class TrainConfig(LearningConfig):
    """Every key of a run's YAML file.

    They stand at the top of the file of ``dxmi train``.

    Args:
        energy: plugin; a network to be learned from data, or a known density
        sampler: plugin; what is fine-tuned, or a chain that stays as it is
        data: what to learn from; null where the energy is a known density
        energy_weights: folder with what the energy starts from: one that 'dxmi pretrain' left, a run or its energy/;
            null starts from random weights
        value: plugin, a network with time; null makes the energy's network the value too
        evaluators: plugins, called at the end
        seed: of weights, noise and batches
        steps: rounds of the game
        game: weights of the game's terms
        replay: states kept from round to round for the value of a value-guided sampler to learn from; null for none
        every: how often to log, draw and save
        proxy: a cheap figure while the run learns, that keeps the best pipeline in best/ and may stop the run
        tracker: any of accelerate's trackers by name; null for none
        compare_steps: numbers of steps at which the rivals are evaluated beside the sampler's own
        batch_size: rollouts in a round of each process where there are no data
        draw_batch: samples that are drawn at once for figures and pictures, where each has its own noise, as teachers'
            have; fewer need less memory and are the same samples
        paths: number of paths whose log-weights say how well a learned sampler hits a known density, and of exact draws
            where a run learns from them
        long_chain: how many times the training's number of steps the chains run that are evaluated beside those of the
            training's length, where the sampler is a chain that cannot learn; null runs none

    Raises:
        ConfigError: a value is out of range
    """

    energy: Energy
    sampler: Sampler
    data: DataConfig | None = None
    energy_weights: str | None = None
    value: Energy | None = None
    evaluators: list[Evaluator] = field(default_factory=list)
    seed: int = 0
    steps: int = 800
    game: GameConfig = field(default_factory=GameConfig)
    replay: ReplayConfig | None = None
    every: EveryConfig = field(default_factory=EveryConfig)
    proxy: ProxyConfig | None = None
    tracker: str | None = "tensorboard"
    compare_steps: list[int] = field(default_factory=lambda: [10, 50])
    batch_size: int = 64
    draw_batch: int = 64
    paths: int = 10_000
    long_chain: int | None = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, "steps", f"{self.steps} rounds train nothing", "give 1 or more")
        require(self.paths >= 2, "paths", f"{self.paths} are too few", "give 2 or more")
        require(self.long_chain is None or self.long_chain >= 1, "long_chain", f"{self.long_chain} is not positive")
        for key in ("batch_size", "draw_batch"):
            require(getattr(self, key) >= 1, key, f"{getattr(self, key)} is not positive")
        require(min(self.compare_steps, default=1) >= 1, "compare_steps", f"{self.compare_steps} are not all positive")
