"""A run from config to product: accelerate, logging, checkpoints, evaluation, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import set_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from dxmi.api.noise import generator
from dxmi.chains import run_chains
from dxmi.config import Checked, TrainConfig, check_given
from dxmi.config.given import Given, default_out
from dxmi.config.run_file import write_run_file
from dxmi.data import Items, Stream
from dxmi.evaluation import FLOOR, data_floor, density_floor, noted
from dxmi.runs.folder import Run
from dxmi.training import checkpoint
from dxmi.training.finish import finish
from dxmi.training.logbook import log_round, look
from dxmi.training.proxy import ProxyWatch
from dxmi.training.session import Session


def train(
    config: Given | Checked[TrainConfig], out: str | Path | None = None, *, resume: bool = False, **overrides: Any
) -> Run:
    """Play the game that ``config`` describes; returns the run, with its products in the folder ``out``.

    Everything that can be wrong with the config is found before ``out`` is touched.

    Args:
        config: a YAML file, or the same as a mapping; ``TrainConfig`` tells its keys
        out: folder to write; None is ``runs/<name of the config>``
        resume: go on with the run in ``out``, from its last checkpoint
        overrides: keys laid over the config, as ``**{"sampler.scheduler.steps": 2}``

    Raises:
        ConfigError: what the user gave is wrong
        FloatingPointError: a loss is not finite
    """
    checked, folder = check_given(TrainConfig, config, overrides), default_out(config) if out is None else Path(out)
    checkpoint.refuse(folder, resume, checked.resolved)
    session = Session(checked, folder, fresh=not (resume and checkpoint.saved(folder)))
    watch = None if session.run.proxy is None else ProxyWatch(session, session.run.proxy)
    session.encode_data()
    floor = floor_row(session)
    start(session, watch, resume)
    play(session, watch)
    finish(session, floor)
    return Run(folder)


def floor_row(session: Session) -> dict[str, Any] | None:
    """The data against itself; done first, since it also shows whether the evaluators can read these data."""
    run = session.run
    if not run.evaluators:
        return None
    if isinstance(session.data, Items | Stream):
        with noted(lambda line: session.screen.note(f"{FLOOR}: {line}")):
            return data_floor(run.evaluators, session.data.reference(), session.accelerator, run.seed)
    return density_floor(run.evaluators, session.halves())


def start(session: Session, watch: ProxyWatch | None, resume: bool) -> None:
    """Create or reopen the run's folder."""
    if session.main and not resume:
        session.out.mkdir(parents=True, exist_ok=True)
        write_run_file(session.out, session.config.resolved)
    set_seed(session.run.seed, device_specific=True)
    if resume:
        checkpoint.restore(session.accelerator, session.out)
        if watch is not None:
            watch.reopen()
    fill_replay(session)
    learn_paths(session)
    if session.run.tracker:
        session.accelerator.init_trackers("dxmi", config={"run": yaml.safe_dump(session.config.resolved)})


def fill_replay(session: Session) -> None:
    """Run the chains that fill the buffer, unless a checkpoint has filled it; every process runs its own."""
    buffer, replay = session.game.buffer, session.run.replay
    if replay is None or replay.fill is None or buffer is None or buffer.states is not None:
        return
    session.screen.tell(f"filling the replay with {replay.size} chains")
    seed = session.run.seed * 1009 + session.accelerator.process_index
    drawn = run_chains(session.run.energy, replay.fill.to(session.accelerator.device), replay.size, seed=seed)
    buffer.keep(drawn.samples)
    if session.main:  # what the chains have to say of themselves, as smc of log Z
        (session.out / "fill.json").write_text(json.dumps(drawn.diagnostics, indent=2) + "\n")


def learn_paths(session: Session) -> None:
    """Draw the teacher's paths, each process its own, and learn them unless a checkpoint is from after that."""
    warm_start, settings, data = session.game.warm_start, session.run.game.warm_start, session.run.data
    if warm_start is None or settings is None or data is None or (session.game.rounds and not settings.keep):
        return
    session.screen.tell(f"warm start: drawing {settings.paths} paths of the teacher in {settings.steps} steps")
    warm_start.draw(generator(session.run.seed, session.accelerator.process_index))
    if session.game.rounds:
        return
    for done, loss in enumerate(warm_start.learn(data.batch_size), start=1):
        if done % 100 == 0 or done == settings.rounds:
            session.screen.tell(f"warm start {done}/{settings.rounds}: path_loss {loss:.4g}")


def play(session: Session, watch: ProxyWatch | None) -> None:
    """All rounds that are left."""
    run, every = session.run, session.run.every
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(
        *columns, TimeRemainingColumn(), console=session.screen.console, disable=not session.main
    ) as progress:
        task = progress.add_task("rounds", total=run.steps, completed=session.game.rounds, state="")
        stopped = watch is not None and watch.stops()  # before the checkpoint of a resumed run
        if stopped:
            session.screen.tell("no round is left: proxy.patience was used up before")
        while session.game.rounds < run.steps and not stopped:
            log = play_round(session)
            step = session.game.rounds
            if step % every.log == 0 or step == run.steps:
                state = log_round(session, log, step, progress.tasks[0].speed)
                progress.update(task, completed=step, state=state)
                if not session.screen.console.is_terminal:  # a log file shows no bar
                    session.screen.tell(f"round {step}/{run.steps}: {state}")
            if step % every.samples == 0:
                look(session, step)
            stopped = watch is not None and step % watch.settings.every == 0 and watch.look(step)
            if step % every.checkpoint == 0 or step == run.steps or stopped:
                checkpoint.save(session.accelerator, session.out, step)
            if stopped and watch is not None:
                session.screen.tell(
                    f"stopped after {step} rounds: best/ is of round {watch.best()}, proxy.patience is used up"
                )


def play_round(session: Session) -> dict[str, Tensor]:
    """One round of the game; a failure tells which checkpoint there is."""
    try:
        data, cond = session.batch()
        return session.game.round(data, session.rollout_shape(), cond)
    except FloatingPointError as error:
        raise FloatingPointError(f"{error} ({checkpoint.last(session.out)})") from error
