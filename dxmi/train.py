"""A run from config to product: accelerate, logging, checkpoints, evaluation, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import yaml
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from dxmi import checkpoint
from dxmi.algorithm import DxMI
from dxmi.api import ConfigError, Cost, Draw, Energy, GaussianSampler, Sampler
from dxmi.assess import Halves, density_floor, halves
from dxmi.chains import draw
from dxmi.config import Checked, Run
from dxmi.data import Source, draw_batch, load_data
from dxmi.dialect import differences
from dxmi.drawing import Student
from dxmi.errors import require
from dxmi.evaluation import data_floor, noted
from dxmi.finish import finish
from dxmi.fitting import (
    check_players,
    check_value_guided,
    event_shape,
    initialise,
    start_from_weights,
)
from dxmi.items import Draws, Items
from dxmi.latents import Encoded, cached
from dxmi.logbook import log_round, look
from dxmi.machine import check_memory, check_processes
from dxmi.proxy import Watch
from dxmi.report import FLOOR
from dxmi.streams import Stream

console = Console(stderr=True)


def train(config: Checked[Run], out: Path, resume: bool = False) -> Path:
    """Play the game that ``config`` describes and leave its products in ``out``.

    Everything that can be wrong with the config is found before ``out`` is touched.

    Raises:
        ConfigError: what the user gave is wrong
        FloatingPointError: a loss is not finite
    """
    old = yaml.safe_load((out / "run.yaml").read_text()) if (out / "run.yaml").exists() else config.resolved
    checkpoint.refuse(out, resume, differences(old, config.resolved))
    session = Session(config, out, fresh=not (resume and checkpoint.saved(out)))
    floor = session.floor()
    session.start(resume)
    session.play()
    finish(session, floor)
    return out


class Session:
    """One process's share of a run; one that is not ``fresh`` has its weights from a checkpoint later."""

    def __init__(self, config: Checked[Run], out: Path, fresh: bool = True):
        self.config, self.out = config, out
        values = config.values
        tracker = values.tracker
        available = [str(known) for known in get_available_trackers()]
        if tracker is not None and tracker not in available:
            raise ConfigError(f"tracker: '{tracker}' is not installed here; give null or one of {', '.join(available)}")
        require(0 <= values.seed < 2**32, f"seed: {values.seed} is not between 0 and 2^32 - 1")
        set_seed(values.seed)
        self.run = run = config.build()
        self.data: Source | None = None if run.data is None else load_data(run.data)
        self.shape = event_shape(run, self.data)
        run.sampler.check(self.shape)
        self.value_guided = isinstance(run.sampler, GaussianSampler) and run.sampler.value_guided
        check_players(run, self.data is not None, self.value_guided)
        if self.value_guided:
            check_value_guided(run, self.shape)
        project = ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "logs"))
        self.accelerator = Accelerator(log_with=tracker, project_config=project)
        check_processes(self.accelerator)
        check_memory(run, self.shape, self.accelerator.device)
        initialise(run, self.shape, self.data)
        changed = start_from_weights(run, config.resolved["energy"]) if fresh else []
        self.game = DxMI(run.energy, run.sampler, run.value, run.game, run, self.accelerator, run.steps, run.replay)
        self.accelerator.register_for_checkpointing(self.game, *self.game.averages())
        self.main, self.said = self.accelerator.is_main_process, set[str]()
        self.watch = None if run.proxy is None else Watch(self, run.proxy)
        self.encoded: Encoded | None = None
        if isinstance(self.data, Items) and run.data is not None and run.data.cache is not None:
            self.encoded = cached(self.data, run.sampler, Path(run.data.cache), self.accelerator, self.tell)
        for line in changed:
            self.tell(f"energy_weights: learned with other options: {line}")

    def floor(self) -> dict[str, Any] | None:
        """The data against itself; done first, since it also shows whether the evaluators can read these data."""
        run = self.run
        if not run.evaluators:
            return None
        if isinstance(self.data, Items | Stream):
            with noted(lambda line: self.note(f"{FLOOR}: {line}")):
                return data_floor(run.evaluators, self.data.reference(), self.accelerator, run.seed)
        return density_floor(run.evaluators, self.halves())

    def halves(self) -> Halves:
        """Samples of the known density that is learned from, or sampled."""
        run = self.run
        energy, tau = (self.data.energy, 1.0) if isinstance(self.data, Draws) else (run.energy, run.sampler.tau)
        return halves(energy, tau, run.paths, run.seed)

    def start(self, resume: bool) -> None:
        """Create or reopen the run's folder."""
        if self.main and not resume:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "run.yaml").write_text(yaml.safe_dump(self.config.resolved, sort_keys=False))
        set_seed(self.run.seed, device_specific=True)
        if resume:
            checkpoint.restore(self.accelerator, self.out)
            if self.watch is not None:
                self.watch.reopen()
        self.fill_replay()
        if self.run.tracker:
            self.accelerator.init_trackers("dxmi", config={"run": yaml.safe_dump(self.config.resolved)})

    def fill_replay(self) -> None:
        """Run the chains that fill the buffer, unless a checkpoint has filled it; every process runs its own."""
        buffer, replay = self.game.buffer, self.run.replay
        if replay is None or replay.fill is None or buffer is None or buffer.states is not None:
            return
        self.tell(f"filling the replay with {replay.size} chains")
        seed = self.run.seed * 1009 + self.accelerator.process_index
        drawn = draw(self.run.energy, replay.fill.to(self.accelerator.device), replay.size, seed=seed)
        buffer.keep(drawn.samples)
        if self.main:  # what the chains have to say of themselves, as smc of log Z
            (self.out / "fill.json").write_text(json.dumps(drawn.diagnostics, indent=2) + "\n")

    def play(self) -> None:
        """All rounds that are left."""
        run, every = self.run, self.run.every
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=console, disable=not self.main) as progress:
            task = progress.add_task("rounds", total=run.steps, completed=self.game.rounds, state="")
            stopped = self.watch is not None and self.watch.stops()  # before the checkpoint of a resumed run
            if stopped:
                self.tell("no round is left: proxy.patience was used up before")
            while self.game.rounds < run.steps and not stopped:
                log = self.round()
                step = self.game.rounds
                if step % every.log == 0 or step == run.steps:
                    state = log_round(self, log, step, progress.tasks[0].speed)
                    progress.update(task, completed=step, state=state)
                    if not console.is_terminal:  # a log file shows no bar
                        self.tell(f"round {step}/{run.steps}: {state}")
                if step % every.samples == 0:
                    look(self, step)
                stopped = self.watch is not None and step % self.watch.settings.every == 0 and self.watch.look(step)
                if step % every.checkpoint == 0 or step == run.steps or stopped:
                    checkpoint.save(self.accelerator, self.out, step)
                if stopped and self.watch is not None:
                    self.tell(
                        f"stopped after {step} rounds: best/ is of round {self.watch.best()}, proxy.patience is used up"
                    )

    def round(self) -> dict[str, Tensor]:
        """One round of the game; a failure tells which checkpoint there is."""
        try:
            data, cond = self.batch()
            return self.game.round(data, self.rollout_shape(), cond)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} ({checkpoint.last(self.out)})") from error

    def batch(self) -> tuple[Tensor | None, Tensor | None]:
        """The data of the next round in the sampler's space and their conditions, on this process's device."""
        if self.data is None or self.run.data is None:
            return None, None
        given = self.run.data, self.game.rounds, self.run.seed, self.accelerator
        if self.encoded is None:
            return self.run.sampler.encode(*draw_batch(self.data, *given))
        x, cond = draw_batch(self.encoded, *given)
        return x, cast(Tensor | None, cond)

    def rollout_shape(self) -> tuple[int, ...]:
        """(B,*S), in the sampler's space."""
        batch_size = self.run.batch_size if self.run.data is None else self.run.data.batch_size
        return (batch_size, *self.run.sampler.state_shape(self.shape))

    def average(self) -> Sampler:
        """The averaged sampler, which is the product."""
        return cast(Sampler, self.game.ema.module)

    def student(self, times: int = 1) -> Draw:
        """What the run has made, to be drawn from, with the chain run ``times`` times on end."""
        cost = Cost(self.run.energy, self.averaged_value(), self.run.sampler.steps)
        return Student(self.average().eval(), self.shape, cost, times)

    def averaged_value(self) -> Energy | None:
        """The value that the averaged sampler follows; the learned one where it follows none."""
        average = self.game.value_ema
        return self.run.value if average is None else cast(Energy, average.module)

    def tell(self, message: str) -> None:
        """A line for the person who waits."""
        if self.main:
            console.print(message, style="dim")

    def note(self, message: str) -> None:
        """The same, but each line once."""
        if message not in self.said:
            self.tell(message)
        self.said.add(message)
