"""Regression onto the teacher's own paths, and nothing else (MATH 3.8): the game's warm start for the whole time.

    python examples/rivals/regression.py --steps 4 --seconds 250 --seed 0 --out runs/regression

Each transition learns to land on the next node of its path, L1 over clean images; one-cycle Adam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from common import Learner, Match, Task, cycle
from measuring import play


@dataclass(frozen=True)
class Settings:
    """What may be tried.

    Args:
        rate: largest learning rate
        paths: how many are drawn, once
        solver_steps: about how many times the teacher is called along each
        eta: how random the student's steps are, from 0 to 1
    """

    rate: float = 5e-4
    paths: int = 6144
    solver_steps: int = 12
    eta: float = 0.0


TRIALS: tuple[dict[str, Any], ...] = ({}, {"rate": 1e-3}, {"paths": 12288}, {"eta": 0.5})


def train(task: Task, settings: Settings) -> Match:
    """Draw the paths, then learn them until the time is up."""
    match = Match(task, eta=settings.eta)
    student = match.student
    xs, _ = student.paths(settings.paths, settings.solver_steps)
    learner = Learner(match, student.network, settings.rate, betas=(0.9, 0.999), shape=cycle)
    for _ in match.rounds():
        k, row = torch.randint(task.steps, (task.batch,)), torch.randint(xs.shape[1], (task.batch,))
        learner.descend(student.path_loss(xs[k, row], k, xs[k + 1, row]))
    return match


if __name__ == "__main__":
    play(__doc__, train, Settings())
