"""Paths of the teacher's own deterministic solver, and how far a student's steps are from them (MATH 3.8).

The solver is DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095), written in alpha and sigma, so that one formula does
for all teachers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dxmi.api import Levels, Schedule, noise_level
from dxmi.api.noise import per_row
from dxmi_plugins.samplers.diffusion.scores import clean
from dxmi_plugins.teachers.teacher import Teacher

BATCH = 512  # paths at once

LEAST_SIGNAL = -5.1
"""``log(alpha/sigma)`` below which a prediction of epsilon tells nothing of x0: its errors come 160 times as large"""


class Grid(NamedTuple):
    """The M levels that a solver goes through, noisiest first; from the last one it goes to the data."""

    timesteps: Tensor
    """(M,) long where all are whole"""
    alphas: Tensor
    """(M+1,) float64, the last 1"""
    sigmas: Tensor
    """(M+1,) float64, the last 0"""
    nodes: list[int]
    """after how many steps the solver is at nodes 1 to T of the schedule"""


def grid(levels: Levels, schedule: Schedule, steps: int) -> Grid:
    """About ``steps`` levels, evenly spaced in index over the teacher's N; the schedule's nodes are among them.

    Its first is the teacher's noisiest, or the first that tells something of x0; or node 0, where that is noisier.
    """
    n, t = len(levels.sigmas), torch.arange(len(schedule.stds))
    of_levels = [part.double() for part in levels[:3]]
    of_nodes = [part.double().cpu() for part in (schedule.timesteps, *schedule.level(t))]
    index = np.atleast_1d(np.interp(noise_level(*of_nodes[1:]), noise_level(*of_levels[1:]), np.arange(n))).tolist()
    signal = (of_levels[1] / of_levels[2]).log()
    start = n - 1
    if levels.prediction_type in ("epsilon", "score"):
        start = int((signal >= LEAST_SIGNAL).sum()) - 1
    chosen: list[int] = []  # of a table of the levels and, after them, the nodes
    nodes: list[int] = []
    stops = [*enumerate(index, n), (-1, -1.0)]  # where they are in the table, and among the levels
    if start > index[0] + 0.5:
        stops.insert(0, (start, float(start)))
    for (place, above), (_, below) in pairwise(stops):
        if place > n:
            nodes.append(len(chosen))
        count = max(1, round((above - below) / n * steps))
        between = [round(above + (below - above) * j / count) for j in range(1, count)]
        chosen += [place, *(i for i in dict.fromkeys(between) if below + 0.5 < i < above - 0.5)]
    timesteps, alphas, sigmas = (torch.cat(both)[chosen] for both in zip(of_levels, of_nodes, strict=True))
    whole = bool((timesteps == timesteps.round()).all())
    timesteps = timesteps.to(torch.int64 if whole else torch.float32)
    end = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return Grid(timesteps, torch.cat([alphas, end[:1]]), torch.cat([sigmas, end[1:]]), [*nodes, len(chosen)])


@torch.no_grad()
def teacher_paths(teacher: Teacher, schedule: Schedule, steps: int, x: Tensor, cond: Tensor | None) -> Tensor:
    """Paths from noise to samples.

    Args:
        teacher: as it was, with its guidance
        schedule: of the student
        steps: of the solver, roughly
        x: where the student starts (n,*S), with std ``schedule.init_noise_sigma``
        cond: conditions (n,...)

    Returns:
        (T+1,n,*S): x itself, then what the solver makes of it, by the schedule's nodes. Although the student's first
        step is told the level of node 0, x is what the teacher's noisiest level is made of.
    """
    over = grid(teacher.levels, schedule, steps)
    exploding = bool((teacher.levels.alphas == 1).all())
    scale = float(over.sigmas[0]) / schedule.init_noise_sigma if exploding else 1.0
    xs = x.new_empty(len(over.nodes) + 1, *x.shape)
    xs[0] = x
    for i in range(0, len(x), BATCH):
        part = slice(i, i + BATCH)
        xs[1:, part] = solve(teacher, schedule, over, scale * x[part], None if cond is None else cond[part])
    return xs


def solve(teacher: Teacher, schedule: Schedule, over: Grid, x: Tensor, cond: Tensor | None) -> Tensor:
    """States (T,B,*S) at nodes 1 to T of paths from x (B,*S) at the first level of the grid.

    ``x_s = (sigma_s/sigma_t)*x_t + (alpha_s - alpha_t*sigma_s/sigma_t)*D``, where D goes on from the last two x0hat;
    in the first and in the last step it is x0hat itself.
    """
    network, timesteps = teacher.network.to(x.device), over.timesteps.to(x.device)
    last, alphas, sigmas = len(timesteps) - 1, over.alphas.tolist(), over.sigmas.tolist()
    log_ratios = (over.alphas / over.sigmas).log().tolist()
    states, before = [], x
    for i in range(last + 1):
        seen = x, timesteps[i].expand(len(x)), over.alphas[i], over.sigmas[i]
        x0 = clean(schedule, teacher.call, network, seen, cond)
        x0 = x0.clamp(-1, 1) if teacher.levels.bounded else x0
        towards = x0
        if 0 < i < last:
            ratio = (log_ratios[i] - log_ratios[i - 1]) / (log_ratios[i + 1] - log_ratios[i])
            towards = x0 + (x0 - before) / (2 * ratio)
        kept = sigmas[i + 1] / sigmas[i]
        x, before = kept * x + (alphas[i + 1] - alphas[i] * kept) * towards, x0
        if i + 1 in over.nodes:
            states.append(x)
    return torch.stack(states)


def landing(x: Tensor, x_next: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]) -> Tensor:
    """The clean data (B,*S) with which the deterministic step (MATH 2.2, eta 0) from x lands on ``x_next``.

    Args:
        x: states (B,*S)
        x_next: where their paths are next (B,*S)
        here: alpha and sigma of x, each (B,)
        there: the same of x_next
    """
    (a_t, s_t), (a_s, s_s) = ([per_row(part.to(x), x) for part in level] for level in (here, there))
    kept = s_s / s_t
    return (x_next - kept * x) / (a_s - a_t * kept)
