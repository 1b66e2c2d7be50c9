"""SFT-PG: shortcut fine-tuning by policy gradient (Fan and Lee 2023, arXiv 2301.13362).

    python examples/rivals/sft_pg.py --steps 4 --seconds 250 --seed 0 --out runs/sft_pg

A critic f maximises ``E f(data) - E f(samples)``, an integral probability metric, and the student minimises it by
REINFORCE: the gradient of the log-probability of each step of its chain, weighed by what f says of the end less what a
baseline expected of it at that state. No gradient goes through the critic. Chains are kept and learned from several
times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from common import Learner, Match, Task, no_cost
from measuring import play
from torch import Tensor

from dxmi.api import Transition
from dxmi.chains import rollout
from dxmi.config import GameConfig
from dxmi.game import energy_loss


@dataclass(frozen=True)
class Settings:
    """What may be tried.

    Args:
        rate: learning rate of the student
        critic_rate: learning rate of critic and baseline
        critic_steps: chains of a round, from each of which critic and baseline learn once
        policy_steps: batches of transitions of a round
        last_std: noise of the last step while the student learns; data are shown with as much
        penalty: weight of the critic's squared gradients, which bound its slope
    """

    rate: float = 1e-5
    critic_rate: float = 3e-4
    critic_steps: int = 5
    policy_steps: int = 10
    last_std: float = 0.1
    penalty: float = 0.5


TRIALS: tuple[dict[str, Any], ...] = ({}, {"rate": 3e-5}, {"last_std": 0.05}, {"critic_steps": 2, "policy_steps": 2})


def log_probability(law: Transition, x_next: Tensor) -> Tensor:
    """``log p(x_{t+1}|x_t)`` (B,) of states (B,*S), the mean over their entries, less what no gradient needs."""
    return (-0.5 * ((x_next - law.mean) / law.std).square()).flatten(1).mean(1)


def policy_gradient(law: Transition, x_next: Tensor, cost: Tensor, baseline: Tensor) -> Tensor:
    """A scalar whose gradient is REINFORCE's: ``mean (cost - baseline)*grad log p``.

    Args:
        law: of the steps
        x_next: where they went (B,*S)
        cost: of the ends of their chains (B,)
        baseline: what was expected of it where they began (B,)
    """
    return ((cost - baseline).detach() * log_probability(law, x_next)).mean()


def train(task: Task, settings: Settings) -> Match:
    """Chains, critic and baseline, then the policy's steps, until the time is up."""
    match = Match(task, eta=1.0, last_std=settings.last_std)
    student, critic, baseline = match.student, match.critic(), match.critic(noised=True)
    learner = Learner(match, student.network, settings.rate)
    judge, expected = (Learner(match, network, settings.critic_rate) for network in (critic, baseline))
    metric = GameConfig(loss="gcd", gamma=0.0, r1=settings.penalty, r2=settings.penalty, penalties="differences")
    for _ in match.rounds():
        kept: list[Tensor] = []
        for _ in range(settings.critic_steps):
            xs = rollout(student, no_cost, match.shape)
            real = match.batch()
            real = real + settings.last_std * torch.randn_like(real)
            judge.descend(energy_loss(metric, critic, torch.cat([real, xs[-1]]), len(real))[0])
            with torch.no_grad():
                cost = critic(xs[-1])
            k = torch.randint(task.steps, (task.batch,))
            seen = xs[k, torch.arange(task.batch)]
            expected.descend((baseline(seen, student.noise_levels[k]) - cost).square().mean())
            kept.append(xs)
        chains = torch.cat(kept, 1)
        with torch.no_grad():
            costs = critic(chains[-1])
        for _ in range(settings.policy_steps):
            k, row = torch.randint(task.steps, (task.batch,)), torch.randint(chains.shape[1], (task.batch,))
            x = chains[k, row]
            with torch.no_grad():
                before = baseline(x, student.noise_levels[k])
            learner.descend(policy_gradient(student(x, k, no_cost), chains[k + 1, row], costs[row], before))
    still(match.average.module)
    return match


def still(student: Any) -> None:
    """Take the noise of the last step away: what is drawn are its means."""
    student.last_log_std.fill_(2e-3).log_()


if __name__ == "__main__":
    play(__doc__, train, Settings())
