"""Samples of a learned sampler on a known density with their log-weights, and the figures of these (MATH 4.8)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Cost, Energy, ExactDraws, Sampler
from dxmi.chains.draw import SamplerDraw
from dxmi.chains.importance import Weighted, estimates, no_log_weights, weigh, weigh_exact

CHUNK = 4096  # paths at a time


FROM_EXACT = ("eubo", "log_z_forward")


LOG_WEIGHTS = ("elbo", "log_z", "ess", *FROM_EXACT, "log_z_exact")


def weighted(
    sampler: Sampler, cost: Cost, n: int, tau: float, generator: Generator
) -> tuple[Weighted, Weighted | None]:
    """N paths of the sampler and, where the density has exact samples, n paths from those, with their log-weights.

    All are of the sampler as it draws: what explores while it learns is off.
    """
    learning = sampler.training
    sampler.eval()
    sizes = [CHUNK] * (n // CHUNK) + [n % CHUNK] * (n % CHUNK > 0)
    forward = joined([weigh(sampler, cost, size, tau, generator) for size in sizes])
    exact: list[Weighted] = []
    if tau == 1 and isinstance(cost.energy, ExactDraws):  # the density's own samples are at temperature 1
        exact = [weigh_exact(sampler, cost, cost.energy.sample(k, generator), tau, generator) for k in sizes]
    sampler.train(learning)
    return forward, joined(exact) if exact else None


def joined(parts: list[Weighted]) -> Weighted:
    """Several sets of weighted samples as one."""
    return Weighted(*(torch.cat(part) for part in zip(*parts, strict=True)))


def log_weight_figures(sampler: Sampler, cost: Cost, n: int, seed: int) -> tuple[Weighted, dict[str, float]]:
    """N weighted samples and the estimates of MATH (4.8), with the density's own log Z where it is known.

    Raises:
        ConfigError: the sampler has no log-weights
    """
    forward, exact = weighted(sampler, cost, n, sampler.tau, Generator().manual_seed(seed))
    found = estimates(forward, exact)
    if cost.energy.log_z is not None and sampler.tau == 1:
        found["log_z_exact"] = cost.energy.log_z
    return forward, found


def drawn_figures(sampler: Sampler, cost: Cost, n: int, seed: int) -> tuple[Weighted, dict[str, float], list[str]]:
    """The same, but of a sampler without log-weights its samples alone and a note that says why.

    ``log_w`` is empty then.
    """
    why = no_log_weights(sampler)
    if why:
        draw = SamplerDraw(sampler, cost.energy.event_shape or (), cost)
        samples = draw(n, sampler.steps, Generator().manual_seed(seed))
        return Weighted(samples, samples.new_empty(0)), {}, [f"no log-weights: sampler: {why}"]
    return *log_weight_figures(sampler, cost, n, seed), []


def require_log_weights(names: list[str], sampler: Sampler, energy: Energy) -> None:
    """Raise ConfigError if one of these figures of log-weights cannot be had, with the reason."""
    kind, warm, unweighed = type(energy).__name__, sampler.tau != 1, no_log_weights(sampler)
    for name in names:
        if unweighed:
            raise ConfigError("metrics", f"{name}: sampler: {unweighed}")
        if name in FROM_EXACT and (warm or not isinstance(energy, ExactDraws)):
            why = f"these are at temperature 1, the sampler is at {sampler.tau}" if warm else f"{kind} has none"
            raise ConfigError("metrics", f"{name} needs exact samples, and {why}")
        if name == "log_z_exact" and (warm or energy.log_z is None):
            why = f"at temperature 1 only, the sampler is at {sampler.tau}" if warm else "not"
            raise ConfigError("metrics", f"log_z_exact: {kind} knows its log Z {why}")


def tensors(drawn: Weighted) -> dict[str, Tensor]:
    """What a file of samples holds: log-weights only where there are some."""
    found = {"samples": drawn.samples.contiguous().cpu()}
    return found | {"log_w": drawn.log_w.cpu()} if len(drawn.log_w) else found
