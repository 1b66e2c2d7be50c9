"""Energies, and their products."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from dxmi.api.errors import ConfigError


class Energy(nn.Module, ABC):
    """``E(x)``, or a value ``V_t(x)`` where it uses ``t``; ``q(x) = exp(-E(x))/Z``.

    Energies can be added and scaled: ``E1 + 2*E2`` is the energy of a product of experts.

    What else a density knows it says by having the method: ``sample`` (``ExactDraws``), ``reference``
    (``StoredDraws``), ``positions`` (``Particles``), ``convolved`` (``Convolved``), ``conditional`` (``Conditionals``);
    ``isinstance(energy, ExactDraws)`` asks. One that hangs on an option is assigned in ``__init__``. Up to 0.1.0 this
    class had them all and they raised NotImplementedError: plugins that override them need no change.
    """

    event_shape: tuple[int, ...] | None = None
    """S of a known density; None for a network, which reads its sizes from the first batch it sees."""
    log_z: float | None = None
    """``log Z`` of a known density, where it is known"""
    log_z_mean_free: float | None = None
    """the same of particles over configurations with the centre of mass at zero, at temperature 1"""
    steps: int | None = None
    """T of a value that is made for so many steps; None where it takes any"""
    reads_noise: bool = False
    """whether its ``t`` is not a step but how noisy x is, a ``noise_level`` in [0, 1000]; None is clean (MATH 3.7)"""

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str]) -> Self:
        """The energy of a run, or in a folder that a run left of one: ``dxmi.load_energy``.

        Raises:
            ConfigError: there is none, its plugin is not installed, or it is another kind of energy
        """
        # The one call upward: users of transformers type it here. By name, since contracts know no room.
        energy = import_module("dxmi.runs").load_energy(source)
        if not isinstance(energy, cls):
            raise ConfigError(Path(source), f"holds a {type(energy).__name__}, no {cls.__name__}")
        return energy

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T, cond (B,...) -> (B,)."""

    def final_time(self, steps: int) -> int:
        """The t at which it is the energy and not a value: T, or the noise level of clean data, 0."""
        return 0 if self.reads_noise else steps

    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``E(x)`` (B,) and its gradient with respect to x (B,*S), detached; override it where that is cheaper.

        Raises:
            ConfigError: the energy cannot be differentiated
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            e = self(x, t, cond)
            if not e.requires_grad:
                raise ConfigError(
                    "energy", f"{type(self).__name__} has no gradient", "use a sampler without, as metropolis"
                )
            (gradient,) = torch.autograd.grad(e.sum(), x)
        return e.detach(), gradient

    def __add__(self, other: Energy) -> Energy:
        return Product([self, other])

    def __mul__(self, weight: float) -> Energy:
        return Product([self], [weight])

    __rmul__ = __mul__

    def __truediv__(self, tau: float) -> Energy:
        return self * (1 / tau)

    def __radd__(self, nothing: int) -> Energy:
        return self if nothing == 0 else NotImplemented  # sum() starts from 0


@runtime_checkable
class ExactDraws(Protocol):
    """A known density that can be drawn from."""

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N independent exact draws (n,*S)."""


@runtime_checkable
class StoredDraws(Protocol):
    """A known density with stored samples, as from long chains, since nobody can draw from it."""

    def reference(self) -> Tensor:
        """All of them, (n,*S)."""


@runtime_checkable
class Particles(Protocol):
    """An energy of identical particles, which stays when they turn, flip, move or change places."""

    def positions(self, x: Tensor) -> Tensor:
        """States x (B,*S) -> particles (B,n,d)."""


@runtime_checkable
class Convolved(Protocol):
    """A known density that knows itself with noise added."""

    def convolved(self, variance: float) -> Energy:
        """The energy of ``x + sqrt(variance)*eps``, up to the constant that keeps ``log_z``."""


@runtime_checkable
class Conditionals(Protocol):
    """A known density that knows the law of each coordinate given the others."""

    def conditional(self, x: Tensor, i: int, generator: Generator | None = None) -> Tensor:
        """Draw coordinate i (of the flattened event) given the others: x (B,*S) -> (B,)."""


@runtime_checkable
class Reconstructs(Protocol):
    """An energy that gives events back: what ``dxmi pretrain`` trains with ``objective: reconstruction``."""

    def reconstruction_loss(self, x: Tensor) -> Tensor:
        """How far events x (B,*S) are from what is given back, a scalar: the mean of squared distances."""


class Product(Energy):
    """A product of experts, ``E = sum_i weight_i * E_i``; a weight alone is an inverse temperature.

    Args:
        experts: the energies, of one event shape
        weights: one for each; null means ones

    Raises:
        ConfigError: there are no experts, their event shapes differ, there is not one weight for each, or some are told
            a noise level and others a step
    """

    def __init__(self, experts: list[Energy], weights: list[float] | None = None):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.weights = [1.0] * len(experts) if weights is None else [float(w) for w in weights]
        shapes = {e.event_shape for e in experts if e.event_shape is not None}
        if not experts:
            raise ConfigError("experts", "give at least one")
        if len(self.weights) != len(experts):
            raise ConfigError("weights", f"{len(self.weights)} of them for {len(experts)} experts", "give one for each")
        if len(shapes) > 1:
            raise ConfigError("experts", f"their event shapes differ: {', '.join(map(str, sorted(shapes)))}")
        self.event_shape = next(iter(shapes), None)
        self.reads_noise = all(e.reads_noise for e in experts)
        if any(e.reads_noise for e in experts) and not self.reads_noise:
            raise ConfigError("experts", "some are told how noisy x is, others a step", "give experts of one kind")

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S) -> (B,)."""
        return sum(w * e(x, t, cond) for w, e in zip(self.weights, self.experts, strict=True))  # type: ignore[no-any-return]

    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The experts' own, weighted."""
        energy, gradient = x.new_zeros(len(x)), torch.zeros_like(x)
        for w, expert in zip(self.weights, self.experts, strict=True):
            e, g = expert.with_gradient(x, t, cond)  # type: ignore[operator]
            energy, gradient = energy.add(e, alpha=w), gradient.add(g, alpha=w)
        return energy, gradient
