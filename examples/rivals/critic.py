"""The critic alone (Zheng and Yang 2024, arXiv 2405.20750): a GAN whose generator starts as the teacher.

    python examples/rivals/critic.py --steps 4 --seconds 250 --seed 0 --out runs/critic

Nothing is distilled. The critic, a head on the teacher's encoder that learns as a whole, tells clean images of the data
from samples, and the gradient goes through all steps of the student's chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from common import Learner, Match, Task, no_cost
from measuring import play
from torch import Tensor
from torch.nn.functional import softplus

from dxmi.config import GameConfig
from dxmi.game import energy_loss
from dxmi.game.players import frozen


@dataclass(frozen=True)
class Settings:
    """What may be tried.

    Args:
        rate: learning rate of the student
        critic_rate: learning rate of the critic
        penalty: weights of the critic's squared gradients at images and at samples (R1 and R2)
        noise: std of the noise on both, in units of the data
    """

    rate: float = 1e-4
    critic_rate: float = 5e-4
    penalty: float = 0.005
    noise: float = 0.05


TRIALS: tuple[dict[str, Any], ...] = ({}, {"rate": 3e-4}, {"penalty": 0.05}, {"critic_rate": 2e-4})


def samples(student: Any, x: Tensor) -> Tensor:
    """The end (B,*S) of the student's chain from x (B,*S), with the gradients of all its steps."""
    for k in range(student.steps):
        x = student.step(x, torch.full((len(x),), k), no_cost)
    return x


def train(task: Task, settings: Settings) -> Match:
    """Critic and student in turn until the time is up."""
    match = Match(task, eta=0.5)
    student, critic = match.student, match.critic()
    learner = Learner(match, student.network, settings.rate)
    judge = Learner(match, critic, settings.critic_rate)
    loss = GameConfig(loss="nce", gamma=0.0, r1=settings.penalty, r2=settings.penalty, penalties="differences")
    for _ in match.rounds():
        x = samples(student, student.initial(match.shape))
        both = torch.cat([match.batch(), x.detach()])
        noisy = both + settings.noise * torch.randn_like(both)
        judge.descend(energy_loss(loss, critic, noisy, len(noisy) - len(x))[0])
        with frozen(critic):
            learner.descend(softplus(critic(x + settings.noise * torch.randn_like(x))).mean())
    return match


if __name__ == "__main__":
    play(__doc__, train, Settings())
