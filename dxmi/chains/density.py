"""Chains on a known density: the game's loop with nobody left to learn, and what the chains tell about themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Cost, Energy, Noised, Sampler
from dxmi.api.errors import require
from dxmi.chains.diagnostics import diagnose
from dxmi.chains.rollout import walk


class ChainSamples(NamedTuple):
    """What chains leave."""

    samples: Tensor
    """(n,*S), the last state of each chain"""
    energies: Tensor
    """(n,) of the samples"""
    traces: Tensor
    """(draws, watch, *S): states of the first chains along their second half; draws is 0 if they are no draws"""
    trace_energies: Tensor
    """(draws, watch) of the traces"""
    diagnostics: dict[str, Any]
    """JSON types only; see ``dxmi.diagnostics``"""


def run_chains(
    energy: Energy,
    sampler: Sampler,
    n: int,
    *,
    value: Energy | None = None,
    seed: int = 0,
    draws: int = 500,
    watch: int = 64,
    start: Tensor | None = None,
    tell: Callable[[int], None] = lambda step: None,
) -> ChainSamples:
    """N chains of ``sampler.steps`` steps on a known density; ``tell(step)`` hears of progress.

    start: x_0 (n,*S) in place of the sampler's own.

    Raises:
        ConfigError: sampler and density do not fit
        FloatingPointError: a state, or the energy where a chain starts or ends, is not finite; names the chain
    """
    shape, cost = (n, *event_shape(energy)), known_cost(energy, sampler, value)
    if start is not None:
        require(tuple(start.shape) == shape, "start", f"it is {tuple(start.shape)}, not {shape}")
        if not start.isfinite().all():
            raise ConfigError("start", f"chain {_first_bad(start)} is not finite")
    last, begin = sampler.steps, max(sampler.warmup, sampler.steps // 2)
    every = max(1, -(-(last - begin) // draws))
    traces, x = [], torch.empty(0)
    for k, x in enumerate(walk(sampler, cost, shape, Generator().manual_seed(seed), start=start)):
        if k == 0 and sampler.stationary:
            checked(energies_of(energy, x), "the start")
        if k % every and k != last:
            continue
        if not x.sum().isfinite() and not x.isfinite().all():
            raise FloatingPointError(f"chain {_first_bad(x)} is not finite at step {k}; try a smaller step size")
        if sampler.stationary and k > begin and k % every == 0:
            traces.append(x[:watch].clone())
        tell(k)
    kept = torch.stack(traces) if traces else x.new_empty(0, *x[:watch].shape)
    energies = checked(energies_of(energy, x), "the end")
    along = energies_of(energy, kept.flatten(0, 1)).reshape(kept.shape[:2])
    return ChainSamples(x, energies, kept, along, diagnose(energy, sampler, energies, kept, along))


@torch.no_grad()
def energies_of(energy: Energy, x: Tensor) -> Tensor:
    """Energies (n,) of states (n,*S), some at a time."""
    if not len(x):
        return x.new_empty(0)  # no energy has to know what to do with no states
    return torch.cat([energy(part) for part in torch.split(x, 65_536)])


def checked(energies: Tensor, where: str) -> Tensor:
    """The energies (n,), all finite. Raises FloatingPointError naming the first chain whose is not."""
    if not energies.isfinite().all():
        bad = int((~energies.isfinite()).nonzero()[0])
        raise FloatingPointError(f"chain {bad} has the energy {energies[bad].item()} at {where}; start elsewhere")
    return energies


def event_shape(energy: Energy) -> tuple[int, ...]:
    """S of a known density. Raises ConfigError for a network."""
    if energy.event_shape is None:
        raise ConfigError("energy", f"{type(energy).__name__} is no known density: it states no event_shape")
    return energy.event_shape


def known_cost(energy: Energy, sampler: Sampler, value: Energy | None = None) -> Cost:
    """The cost to go of chains on a known density; a chain with noise in its state gets the convolved densities.

    Raises:
        ConfigError: sampler and density do not fit, or the density does not know what the sampler needs
    """
    shape = event_shape(energy)
    sampler.check(shape)
    with torch.no_grad():
        found = tuple(energy(sampler.initial((2, *shape), Generator().manual_seed(0))).shape)
    require(
        found == (2,), "energy", f"{type(energy).__name__} returns {found} for (2, *{shape})", "one number a row is due"
    )
    if value is None and sampler.sigmas is not None:
        value = Noised(energy, sampler.sigmas)
    return Cost(energy, value, sampler.steps)


def _first_bad(x: Tensor) -> int:
    return int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
