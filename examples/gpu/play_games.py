"""Games of four steps and of one, by ``dxmi.train``, with as many rounds as there is time for."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from budget import OutOfTime
from job import ROOT, Job, read_lines

import dxmi
from dxmi.api.noise import generator
from dxmi.config import TrainConfig, check_given
from dxmi.game import build_game

SAFE = 0.85  # of the time left that is planned for
PATHS, WARM = 0.1, 0.25  # shares of it for drawing the teacher's paths and learning them; the rest is the game's
OVERHEAD = 10.0  # seconds on a GPU for what is no round: loading, proxies, pictures, files
WARMED = 4  # steps that are not timed
EXTRACTOR = ROOT / "examples" / "extractors" / "cifar10.safetensors"


class Speeds(NamedTuple):
    """Seconds on this device."""

    path: float
    """to draw one of the teacher's paths"""
    warm: float
    """a step of the warm start"""
    round: float
    """a round of the game"""


class Plan(NamedTuple):
    """What there is time for."""

    paths: int
    warm: int
    """steps of the warm start"""
    rounds: int


def game_part(job: Job, name: str) -> dict[str, Any]:
    """Time the parts of a game, choose its length, play it."""
    config = ROOT / "configs" / f"cifar10_gpu_{name}.yaml"
    keys = keys_of(job, job.needs_teacher())
    speeds = trial(job, config, keys)
    planned = plan(job.budget.left(name) - OVERHEAD - job.decoding, speeds, job)
    folder = job.work / name
    cut = play(config, folder, keys | lengths(planned, job))
    job.curves[name] = read_lines(folder / "metrics.jsonl")
    found: dict[str, Any] = {"seconds_each": speeds._asdict(), "planned": planned._asdict()}
    found |= {"rounds": int(max((line["step"] for line in job.curves[name]), default=0)), "curve": job.curves[name]}
    kinds = ("best", "pipeline") if cut else ("pipeline", "best")  # a run that was stopped may have half of a pipeline
    for kind in kinds:
        if (folder / kind / "model_index.json").exists():
            job.students[name] = folder / kind
            best = folder / "best" / "proxy.json"
            return found | {"kept": kind, "best": json.loads(best.read_text()) if best.exists() else None, "error": cut}
    raise OutOfTime(f"{cut}, after {found['rounds']} of {planned.rounds} rounds, with nothing to keep")


def play(config: Path, folder: Path, keys: dict[str, Any]) -> str | None:
    """A run; why it was stopped, or None."""
    try:
        dxmi.train(config, folder, **keys)
    except OutOfTime as error:
        return str(error)
    return None


def keys_of(job: Job, teacher: Path) -> dict[str, Any]:
    """What is laid over a game's config, whatever its length."""
    judge = {"name": "fidelity", "extractor": str(EXTRACTOR), "samples": job.sizes.looks}
    return {
        "data.path": job.data,
        "data.column": job.column,
        "energy.teacher": str(teacher),
        "sampler.teacher": str(teacher),
        "evaluators": [judge | {"metrics": ["fid"], "floor_draws": 0}],
        "compare_steps": [],
        "tracker": None,
        **job.sizes.game,
    }


def lengths(planned: Plan, job: Job) -> dict[str, Any]:
    """The keys that a plan decides."""
    eighth = max(1, planned.rounds // 8)
    return {
        "steps": planned.rounds,
        "game.warmup": planned.rounds // 5,
        "game.warm_start.paths": planned.paths,
        "game.warm_start.rounds": planned.warm,
        "every.log": max(1, planned.rounds // 100),
        "every.samples": planned.rounds,
        "every.checkpoint": planned.rounds,
        "proxy": {"every": eighth, "samples": job.sizes.looks},
    }


def plan(seconds: float, speeds: Speeds, job: Job) -> Plan:
    """How many of each fit into the time, at least a few."""
    free, most = max(0.0, SAFE * seconds), job.sizes.rounds
    paths = min(job.sizes.paths, max(16, int(PATHS * free / speeds.path)))
    warm = max(8, int(WARM * free / speeds.warm))
    rounds = max(8, int((1 - PATHS - WARM) * free / speeds.round))
    return Plan(paths, *(n if most is None else min(most, n) for n in (warm, rounds)))


def trial(job: Job, config: Path, keys: dict[str, Any]) -> Speeds:
    """What a path, a step of the warm start and a round of these players take; they are thrown away."""
    count, paths = job.sizes.trial, min(job.sizes.paths, 512)
    few = {"game.warmup": 0, "game.warm_start.paths": paths, "game.warm_start.rounds": 2 * (WARMED + count)}
    run = check_given(TrainConfig, config, {**keys, **few}).build()
    assert run.data is not None
    size = run.data.batch_size
    x = job.images[torch.arange(size) % len(job.images)]
    run.energy(x[:1], torch.zeros(1))  # which tells it its sizes
    game = build_game(run.energy, run.sampler, None, run.game, run, job.accelerator, total=1000)
    assert game.warm_start is not None
    for _ in range(2):  # the second time the device is warm
        begin = job.synchronised()
        game.warm_start.draw(generator(0))
        path = (job.synchronised() - begin) / paths
    steps, x = game.warm_start.learn(size), x.to(job.device)
    warm = timed(job, lambda n: sum(islice(steps, n)))
    return Speeds(path, warm, timed(job, lambda n: [game.round(x, tuple(x.shape)) for _ in range(n)]))


def timed(job: Job, work: Callable[[int], object]) -> float:
    """Seconds for one of what ``work(n)`` does n of, once the device is warm."""
    work(WARMED if job.sizes.rounds is None else 1)
    begin = job.synchronised()
    work(job.sizes.trial)
    return (job.synchronised() - begin) / job.sizes.trial
