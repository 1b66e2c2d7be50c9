"""DMD2: distribution matching distillation with an online fake score (Yin et al. 2024, arXiv 2405.14867).

    python examples/rivals/dmd2.py --steps 4 --seconds 250 --seed 0 --out runs/dmd2
    python examples/rivals/dmd2.py --set critic=0 --out runs/dmd2_alone

The student's clean images at a random node of its own chain are noised again; they go where the teacher's score points
and away from where the fake score does, which learns online what they look like, several times a round. A critic of
noised images, real ones against the student's, adds its own term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from common import Learner, Match, Task
from dxmi_plugins.schedulers.few_step import FewStepScheduler
from measuring import play
from torch import Tensor, nn
from torch.nn.functional import softplus

from dxmi.api.noise import per_row
from dxmi.game import nce
from dxmi.game.players import frozen


@dataclass(frozen=True)
class Settings:
    """What may be tried.

    Args:
        rate: learning rate of the student
        fake_rate: learning rate of the fake score, and of the critic
        fake_steps: how often both learn in a round; the paper's 5 leave a CPU few rounds
        critic: weight of the critic's term; 0 is the first paper's loss, without it
        renoised: 1 for the paper's chain, each of whose steps draws new noise; 0 for the game's, with half of DDPM's
    """

    rate: float = 1e-4
    fake_rate: float = 3e-4
    fake_steps: int = 2
    critic: float = 0.01
    renoised: int = 0


TRIALS: tuple[dict[str, Any], ...] = ({}, {"rate": 3e-4}, {"fake_steps": 5}, {"renoised": 1})


def distillation(x: Tensor, wanted: Tensor, fake: Tensor) -> Tensor:
    """A scalar whose gradient at x is ``(fake - wanted)/mean|x - wanted|``, over the size of x.

    Args:
        x: clean images of the student (B,*S)
        wanted: what the teacher takes for clean in them, noised (B,*S)
        fake: the same of the fake score
    """
    scale = (x - wanted).abs().flatten(1).mean(1).clamp_min(1e-3)
    return (x * ((fake - wanted) / per_row(scale, x)).detach()).mean()


def denoising(student: Any, fake: nn.Module, x: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
    """The error of the noise that the fake score sees in ``noisy`` (B,*S), x at ``level`` (B,): a scalar."""
    alpha, sigma = student.at_level(level)
    return (
        (per_row((alpha / sigma).clamp(max=20.0), x) * (student.denoised(noisy, level, None, fake) - x)).square().mean()
    )


def renoise(student: Any) -> None:
    """Have each step make noise anew, ``x_{k+1} = alpha*x0hat + sigma*eps``: so large an eta keeps none of the old."""
    options = {key: value for key, value in student.schedule.config.items() if not key.startswith("_")}
    student.schedule = FewStepScheduler(**options | {"eta": 1e6})
    with torch.no_grad():
        student.log_std.copy_(student.noise.sigmas[1:-1].log())


def clean_images(match: Match) -> Tensor:
    """The student's clean images (B,*S) at a random node of its chain; they alone have a gradient."""
    k = int(torch.randint(match.task.steps, ()))
    level = match.student.noise_levels[k].expand(match.task.batch)
    return match.student.denoised(match.state(k), level, None, match.student.network)


def train(task: Task, settings: Settings) -> Match:
    """Two time scales until the time is up: the fake score and the critic, then the student."""
    match = Match(task, eta=0.5)
    student, critic = match.student, match.critic(noised=True) if settings.critic else None
    for sampler in (student, match.average.module) if settings.renoised else ():
        renoise(sampler)
    fake = student.score_network()
    learner, scorer = Learner(match, student.network, settings.rate), Learner(match, fake, settings.fake_rate)
    judge = None if critic is None else Learner(match, critic, settings.fake_rate)
    for _ in match.rounds():
        for _ in range(settings.fake_steps):
            with torch.no_grad():
                x = clean_images(match)
            level = match.levels()
            noisy = match.noised(x, level)
            scorer.descend(denoising(student, fake, x, noisy, level))
            if critic is not None and judge is not None:
                real = match.noised(match.batch(), level)
                judge.descend(nce(*critic(torch.cat([real, noisy]), level.repeat(2)).chunk(2)))
        x, level = clean_images(match), match.levels()
        noisy = match.noised(x, level)
        with torch.no_grad():
            both = student.denoised(noisy, level).clamp(-1, 1), student.denoised(noisy, level, None, fake).clamp(-1, 1)
        loss = distillation(x, *both)
        if critic is None:
            learner.descend(loss)
            continue
        with frozen(critic):
            learner.descend(loss + settings.critic * softplus(critic(noisy, level)).mean())
    return match


if __name__ == "__main__":
    play(__doc__, train, Settings())
