"""The keys of a run; checking and building them. jsonargparse does both, and the rest of dxmi does not know it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Generic, TypeVar, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dxmi.api import ConfigError, Energy, Evaluator, Sampler
from dxmi.data import Data
from dxmi.dialect import contract, expand_options
from dxmi.errors import require
from dxmi.learning import Game, Learning, Proxy
from dxmi.replay import Replay

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


def one_line(error: Exception) -> str:
    """Jsonargparse's nested report -> ``key.sub: what is wrong``."""
    text, opening = str(error), 'Parser key "|Problem with'
    keys = re.findall(r'(?:Parser key|Key) "([^"]+)"', text)
    lines = [line.strip(" -") for line in text.splitlines() if line.strip() and not re.search(opening, line)]
    complaint = " ".join(lines) or text
    union = re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value: (.*)", complaint)
    inner = re.findall(rf"(?:{opening})[^\n]*:\n[\s-]++((?!Does not|{opening})[^\n]+)", text)
    if union and inner:  # one of the alternatives was meant, and something in it is wrong
        complaint = inner[-1]
    elif union:
        complaint = f"Expected one of {union[1].replace('NoneType', 'null')}. Got value: {union[2]}"
    complaint = re.sub(r"<class '([^']+)'>", r"\1", complaint).replace("a typing.Literal", "one of ")
    complaint = complaint.replace(" a int", " an int")
    return ": ".join(filter(None, [".".join(keys), complaint[0].lower() + complaint[1:]]))


def causes(error: BaseException | None, kind: type[E]) -> Iterator[E]:
    """The errors of one kind among an error and what caused it."""
    while error is not None:
        if isinstance(error, kind):
            yield error
        error = error.__cause__ or error.__context__


@dataclass(kw_only=True)
class Every:
    """How often, in rounds.

    Args:
        log: a line in metrics.jsonl and to the tracker
        samples: a grid of samples
        checkpoint: a checkpoint to resume from
    """

    log: int = 10
    samples: int = 200
    checkpoint: int = 400

    def __post_init__(self) -> None:
        for key, rounds in vars(self).items():
            require(rounds >= 1, f"every.{key}: {rounds} is not a number of rounds; give 1 or more")


@dataclass(kw_only=True)
class Run(Learning):
    """Every key of a run's YAML file.

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
    """

    energy: Energy
    sampler: Sampler
    data: Data | None = None
    energy_weights: str | None = None
    value: Energy | None = None
    evaluators: list[Evaluator] = field(default_factory=list)
    seed: int = 0
    steps: int = 800
    game: Game = field(default_factory=Game)
    replay: Replay | None = None
    every: Every = field(default_factory=Every)
    proxy: Proxy | None = None
    tracker: str | None = "tensorboard"
    compare_steps: list[int] = field(default_factory=lambda: [10, 50])
    batch_size: int = 64
    draw_batch: int = 64
    paths: int = 10_000
    long_chain: int | None = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, f"steps: {self.steps} rounds train nothing; give 1 or more")
        require(self.paths >= 2, f"paths: {self.paths} are too few; give 2 or more")
        require(self.long_chain is None or self.long_chain >= 1, f"long_chain: {self.long_chain} is not positive")
        for key in ("batch_size", "draw_batch"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is not positive")
        require(min(self.compare_steps, default=1) >= 1, f"compare_steps: {self.compare_steps} are not all positive")


def build_plugin(kind: type[T], value: Any) -> T:
    """One plugin from its dialect, ``{name: ..., options}``. Raises ConfigError as ``Checked`` does."""
    holder = make_dataclass("Holder", [("plugin", kind)])
    return cast(T, Checked(holder, {"plugin": value}).build().plugin)  # type: ignore[attr-defined]


class Checked(Generic[T]):
    """A config whose keys and types are right, nothing built yet. ``resolved`` is the dialect with every default."""

    def __init__(self, kind: type[T], config: dict[str, Any]):
        """Raises ConfigError naming the key that does not exist or has the wrong type."""
        self.parser = ArgumentParser(exit_on_error=False)
        self.parser.add_class_arguments(kind, sub_configs=False)
        try:
            self.values: Namespace = self.parser.parse_object(expand_options(config, kind, ""))
        except ArgumentError as error:
            raise ConfigError(one_line(error)) from error
        self.resolved: dict[str, Any] = contract(yaml.safe_load(self.parser.dump(self.values, skip_none=False)))
        self.kind = kind

    def build(self) -> T:
        """Construct everything. Weights come from torch's global generator: seed it first.

        Raises:
            ConfigError: a constructor refuses its options
        """
        try:
            return self.kind(**self.parser.instantiate(self.values).as_dict())
        except (ValueError, TypeError) as error:
            raise next(causes(error, ConfigError), ConfigError(one_line(error))) from error
