"""Falling noise levels and step sizes for annealed Langevin (TOOLBOX rows 23, 24).

Song and Ermon 2019, arXiv:1907.05600; techniques 1, 2 and 4 of their 2020 paper, arXiv:2006.09011.
Step sizes are h of ``x + h*score + sqrt(2*h)*eps``, as in the second; those of the first paper are twice as large.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from dxmi.api import ConfigError

WIDEST_RATIO = 2.0  # of neighbouring levels; with few dimensions technique 2 asks for any ratio, however wide

EXACTLY = {"xtol": 1e-16, "rtol": 1e-15}  # a root to the last digits


def ladder(sigmas: list[float] | None, sigma_max: float, sigma_min: float, levels: int) -> list[float]:
    """The noise levels that the options ask for: ``sigmas``, checked, or without them a geometric ladder.

    Raises:
        ConfigError: the levels do not fall, or are not positive and finite
    """
    if sigmas is None:
        return geometric_sigmas(sigma_max, sigma_min, levels)
    for above, below in zip([math.inf, *sigmas], [*sigmas, 0.0], strict=True):
        if not above > below:
            raise ConfigError(
                "sigmas", f"{above} is followed by {below}", "give positive stds, each below the one before"
            )
    if not sigmas:
        raise ConfigError("sigmas", "the list is empty", "give positive stds, or null for a geometric ladder")
    return [float(sigma) for sigma in sigmas]


def geometric_sigmas(sigma_max: float, sigma_min: float, levels: int) -> list[float]:
    """``levels`` stds with one ratio from ``sigma_max`` down to ``sigma_min``.

    Raises:
        ConfigError: fewer than two levels, or not 0 < sigma_min < sigma_max
    """
    if levels < 2:
        raise ConfigError("levels", f"{levels} cannot go from {sigma_max} to {sigma_min}", "give 2 or more, or sigmas")
    if not sigma_min > 0:
        raise ConfigError("sigma_min", f"{sigma_min} is not positive")
    if not sigma_min < sigma_max < math.inf:
        raise ConfigError("sigma_max", f"{sigma_max} is not above sigma_min, {sigma_min}, or not finite")
    ratio = (sigma_min / sigma_max) ** (1 / (levels - 1))
    return [sigma_max * ratio**n for n in range(levels - 1)] + [sigma_min]


def step_size_at(sigma: float, sigma_min: float, step_size: float) -> float:
    """``h_n = step_size*(sigma_n/sigma_min)^2``: every level's step has the same ratio of signal to noise."""
    return step_size * (sigma / sigma_min) ** 2


def chosen_step_size(step_size: float | None, sigmas: list[float], inner: int) -> float:
    """The step size at the last of the levels: the one given, checked, or technique 4's for the mean ratio.

    Raises:
        ConfigError: it or the number of steps a level is not positive, or there is one level only to choose it for
    """
    if inner < 1:
        raise ConfigError("inner", f"{inner} steps a level", "give 1 or more")
    if step_size is None and len(sigmas) == 1:
        raise ConfigError("step_size", "null needs two levels or more to choose one", "give a number")
    if step_size is None:
        return best_step_size(sigmas[-1], (sigmas[0] / sigmas[-1]) ** (1 / (len(sigmas) - 1)), inner)
    if not 0 < step_size < math.inf:
        raise ConfigError("step_size", f"{step_size} is not positive")
    return step_size


def largest_distance(data: Tensor, most: int = 5000) -> float:
    """The largest Euclidean distance of two events of data (N,*S): technique 1's ``sigma_max``.

    Of more than ``most`` events, that many are compared, evenly spaced.
    """
    events = data.flatten(1)
    if len(events) > most:
        events = events[torch.linspace(0, len(events) - 1, most).long()]
    events = events - events.mean(0)  # distances by matrix products lose digits far from the origin
    return max(float(torch.cdist(block, events).max()) for block in torch.split(events, 1000))


def level_ratio(dimensions: int) -> float:
    """Technique 2: the ratio r of neighbouring levels at which enough of one lies where the next was trained.

    Solves ``Phi(sqrt(2D)*(r-1) + 3r) - Phi(sqrt(2D)*(r-1) - 3r) = 1/2``, and gives at most 2.
    """

    def excess(ratio: float) -> float:
        away = math.sqrt(2 * dimensions) * (ratio - 1)
        return float(ndtr(away + 3 * ratio) - ndtr(away - 3 * ratio)) - 0.5

    return WIDEST_RATIO if excess(WIDEST_RATIO) > 0 else float(brentq(excess, 1.0, WIDEST_RATIO, **EXACTLY))


def best_step_size(sigma_min: float, ratio: float, inner: int) -> float:
    """Technique 4: the step size at ``sigma_min`` after whose ``inner`` steps the noise has most nearly its level.

    On data of one point, with ``u = h/sigma_min^2`` and ``s = 2/(2 - u)``, they take the variance from ``ratio^2`` to
    ``(1 - u)^(2*inner)*(ratio^2 - s) + s`` in units of the level's. Never below 1, it is least for one u in (0, 1).
    """

    def slope(u: float) -> float:
        s, kept = 2 / (2 - u), (1 - u) ** (2 * inner)
        slope_s, slope_kept = 2 / (2 - u) ** 2, -2 * inner * (1 - u) ** (2 * inner - 1)
        return slope_kept * (ratio**2 - s) + (1 - kept) * slope_s

    return float(brentq(slope, 0.0, 1.0, **EXACTLY)) * sigma_min**2


def suggest_sigmas(data: Tensor, sigma_min: float = 0.01, inner: int = 5) -> tuple[list[float], float]:
    """Noise levels, falling, and the step size at the last one for data (N,*S), of whatever unit they are in.

    ``AnnealedLangevinScheduler(sigmas=..., step_size=...)`` takes both, and so does the ``annealed_langevin`` sampler.

    Args:
        data: events (N,*S)
        sigma_min: std of the last level, too small to be seen
        inner: Langevin steps at each level

    Raises:
        ConfigError: no two events are further apart than ``sigma_min``, or an option is out of its range
    """
    sigma_max = largest_distance(data)
    if not sigma_max > sigma_min:
        raise ConfigError("data", f"no two events are further apart than sigma_min, {sigma_min}")
    levels = 1 + round(math.log(sigma_max / sigma_min) / math.log(level_ratio(data[0].numel())))
    sigmas = geometric_sigmas(sigma_max, sigma_min, max(2, levels))
    return sigmas, chosen_step_size(None, sigmas, inner)
