"""Consistency distillation (Song et al. 2023, arXiv 2303.01469), with T segments where T > 1.

    python examples/rivals/consistency.py --steps 4 --seconds 250 --seed 0 --out runs/consistency

From data noised to level t, one step of the teacher's solver goes to a lower level t'. The student's jump from t shall
end where the jump from t' of its slow average ends. Jumps end at the next node (multistep consistency models, Heek et
al. 2024, arXiv 2403.06807; phased ones, Wang et al. 2024, arXiv 2405.18407), where they are what they start from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from common import Learner, Match, Task
from measuring import play
from torch import Tensor, nn

from dxmi.api.noise import per_row
from dxmi.game.players import averaged


@dataclass(frozen=True)
class Settings:
    """What may be tried.

    Args:
        rate: learning rate
        intervals: of all segments together, one step of the solver each
        target: decay of the slow average
        clamped: 1 tells the network the first node's level at all levels above it; 0 squeezes the first segment
    """

    rate: float = 2e-4
    intervals: int = 48
    target: float = 0.95
    clamped: int = 1


TRIALS: tuple[dict[str, Any], ...] = ({}, {"rate": 5e-5}, {"intervals": 24}, {"clamped": 0})


class Segments:
    """The noise levels in which the student jumps, T segments of as many intervals, even in level.

    The first segment starts at the teacher's noisiest level, but a student is told the level of node 0 there: so what
    it is told of the first segment's levels goes from that of node 0 to that of node 1.
    """

    def __init__(self, student: Any, intervals: int, clamped: bool = False):
        nodes = student.noise_levels
        self.student, self.clamped, self.first = student, clamped, nodes[0]
        self.tops, self.ends = torch.cat([student.noise.known[-1:], nodes[1:-1]]), nodes[1:]
        self.count = max(1, round(intervals / student.steps))

    def levels(self, segment: Tensor, interval: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Upper and lower level of some intervals, and the level at which jumps from there end: (B,) each."""
        top, end = self.tops[segment], self.ends[segment]
        upper, lower = (end + (top - end) * (interval + above) / self.count for above in (1, 0))
        return upper, lower, end

    def told(self, level: Tensor, segment: Tensor) -> Tensor:
        """What the student's network is told of levels (B,)."""
        if self.clamped:
            return level.minimum(self.first)
        end, top = self.ends[0], self.tops[0]
        return torch.where(segment == 0, end + (level - end) * (self.first - end) / (top - end), level)


def solver_step(student: Any, x: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """The teacher's step from x (B,*S) at ``upper`` to ``lower`` (B,): second order, after Heun.

    ``x_s = (sigma_s/sigma_t)*x_t + (alpha_s - alpha_t*sigma_s/sigma_t)*D`` with the mean D of the clean images at
    both ends.
    """
    (a_t, s_t), (a_s, s_s) = ([per_row(part, x) for part in student.at_level(level)] for level in (upper, lower))
    kept = s_s / s_t
    clean = student.denoised(x, upper).clamp(-1, 1)
    guess = kept * x + (a_s - a_t * kept) * clean
    there = student.denoised(guess, lower).clamp(-1, 1)
    return kept * x + (a_s - a_t * kept) * (clean + there) / 2


def consistency_loss(
    segments: Segments, network: nn.Module, target: nn.Module, noisy: Tensor, segment: Tensor, interval: Tensor
) -> Tensor:
    """How far jumps over the upper end of an interval are from those of ``target`` over its lower end: a scalar.

    L1 between the clean images that they stand for, divided by how far these move with the network's output.

    Args:
        segments: where the intervals are
        network: the student's
        target: its slow average
        noisy: states (B,*S) at the upper levels
        segment: which (B,), 0 to T-1
        interval: which of it (B,), 0 the lowest
    """
    student = segments.student
    upper, lower, end = segments.levels(segment, interval)
    a_s, s_s = (per_row(part, noisy) for part in student.at_level(end))

    def jump(x: Tensor, level: Tensor, by: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Where it ends, how far that moves with the clean image, and how far this moves with the network's output."""
        told = segments.told(level, segment)
        a_t, s_t = (per_row(part, x) for part in student.at_level(told))
        kept = s_s / s_t.clamp_min(1e-6)
        clean = student.denoised(x, told, None, by)
        return kept * x + (a_s - a_t * kept) * clean, a_s - a_t * kept, (s_t / a_t).clamp_min(1)

    with torch.no_grad():
        x = solver_step(student, noisy, upper, lower)
        wanted = torch.where(per_row(interval == 0, x), x, jump(x, lower, target)[0])
    landed, by_clean, by_output = jump(noisy, upper, network)
    return ((landed - wanted) / by_clean / by_output).abs().mean()


def train(task: Task, settings: Settings) -> Match:
    """Distil until the time is up."""
    match = Match(task, eta=0.0)
    student = match.student
    segments = Segments(student, settings.intervals, bool(settings.clamped))
    target = averaged(student.network, settings.target, ramp=False)
    learner = Learner(match, student.network, settings.rate, betas=(0.9, 0.999))
    for _ in match.rounds():
        segment, interval = torch.randint(task.steps, (task.batch,)), torch.randint(segments.count, (task.batch,))
        noisy = match.noised(match.batch(), segments.levels(segment, interval)[0])
        learner.descend(consistency_loss(segments, student.network, target.module, noisy, segment, interval))
        target.update_parameters(student.network)
    return match


if __name__ == "__main__":
    play(__doc__, train, Settings())
