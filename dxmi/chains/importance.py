"""Importance weights of a sampler's trajectories: an honest log Z from a sampler that tells its steps (MATH 4.7)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Cost, GaussianSampler, Noising, Sampler, Transition, randn


class Weighted(NamedTuple):
    """Samples and the logs of their weights."""

    samples: Tensor
    """(n,*S)"""
    log_w: Tensor
    """(n,); their exponentials average to Z under the sampler"""


def log_density(law: Transition, x: Tensor) -> Tensor:
    """``log N(x; mean, std^2 I)``: (B,)."""
    std = law.std.expand_as(x)
    terms = ((x - law.mean) / std).square() / 2 + std.log() + math.log(2 * math.pi) / 2
    return -terms.flatten(1).sum(1)


def path_log_weights(sampler: Sampler, cost: Cost, xs: Tensor, tau: float) -> Tensor:
    """MATH (4.7) of trajectories xs (T+1,n,*S): ``-E(x_T)/tau + log q~(x_0..x_{T-1}|x_T) - log pi(x_0..x_T)``, (n,).

    Raises:
        ConfigError: as ``weigh``
    """
    chain = noising_chain(sampler)
    with torch.no_grad():
        log_w: Tensor = -cost.energy(xs[-1]) / tau - log_density(chain.start_law(xs[0]), xs[0])
        for k in range(sampler.steps):
            t = torch.full((xs.shape[1],), k, device=xs.device)
            log_w = log_w + log_ratio(chain, sampler(xs[k], t, cost), xs[k], t, xs[k + 1])
    return log_w


def log_ratio(chain: Noising, law: Transition, x: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
    """What one step adds: ``log q~(x|x_next) - log pi(x_next|x)``, (n,)."""
    return log_density(chain.noising(x_next, t), x) - log_density(law, x_next)


@torch.no_grad()
def weigh(sampler: Sampler, cost: Cost, n: int, tau: float = 1.0, generator: Generator | None = None) -> Weighted:
    """N trajectories of the sampler and their log-weights, weighed on the way so that no state is kept.

    Raises:
        ConfigError: the sampler does not tell its transitions, or has no noising chain to compare them with
    """
    chain = noising_chain(sampler)
    x = sampler.initial((n, *(cost.energy.event_shape or ())), generator)
    log_w = -log_density(chain.start_law(x), x)
    for k in range(sampler.steps):
        t = torch.full((n,), k, device=x.device)
        law: Transition = sampler(x, t, cost)
        x_next = law.sample(generator)
        log_w = log_w + log_ratio(chain, law, x, t, x_next)
        x = x_next
    return Weighted(x, log_w - cost.energy(x) / tau)


def weigh_exact(
    sampler: Sampler, cost: Cost, exact: Tensor, tau: float = 1.0, generator: Generator | None = None
) -> Weighted:
    """Exact samples (n,*S) carried back to noise by the noising chain, and the log-weights of those paths.

    Raises:
        ConfigError: as ``weigh``
    """
    chain = noising_chain(sampler)
    xs = [exact]
    for k in reversed(range(sampler.steps)):
        law = chain.noising(xs[0], torch.full((len(exact),), k, device=exact.device))
        xs.insert(0, law.mean + law.std * randn(tuple(exact.shape), exact, generator))
    return Weighted(exact, path_log_weights(sampler, cost, torch.stack(xs), tau))


def noising_chain(sampler: Sampler) -> Noising:
    """The sampler as what its paths are compared with. Raises ConfigError where it has no log-weights."""
    if not isinstance(sampler, Noising) or no_log_weights(sampler):
        raise ConfigError("sampler", no_log_weights(sampler))
    return sampler


def no_log_weights(sampler: Sampler) -> str:
    """Why a sampler has no log-weights; empty where it has."""
    kind = type(sampler).__name__
    if not isinstance(sampler, GaussianSampler):
        return f"{kind} does not tell its transitions, so it has no log-weights"
    return "" if isinstance(sampler, Noising) else f"{kind} has no noising chain, so it has no log-weights"


def estimates(drawn: Weighted, exact: Weighted | None = None) -> dict[str, float]:
    """MATH (4.8): ELBO, log Z of the sampler's own paths, ESS over K; with exact samples also EUBO and their log Z."""
    log_w, n = drawn.log_w.double(), len(drawn.log_w)
    found = {
        "elbo": log_w.mean().item(),
        "log_z": (log_w.logsumexp(0) - math.log(n)).item(),
        "ess": (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0) - math.log(n)).exp().item(),
    }
    if exact is not None:
        back = exact.log_w.double()
        found |= {"eubo": back.mean().item(), "log_z_forward": -((-back).logsumexp(0) - math.log(len(back))).item()}
    return found
