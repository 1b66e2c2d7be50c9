"""Energies and what can be made of them: products, and the cost to go of a chain. ``dxmi.api`` exports all of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from dxmi.errors import ConfigError

CostToGo = Callable[[Tensor, Tensor], Tensor]
"""``J(x (B,*S), t (B,) integer) -> (B,)``, the expected cost from step t on; ``J(x, T) = E(x)``."""


class Energy(nn.Module, ABC):
    """``E(x)``, or a value ``V_t(x)`` where it uses ``t``; ``q(x) = exp(-E(x))/Z``.

    Energies can be added and scaled: ``E1 + 2*E2`` is the energy of a product of experts.
    """

    event_shape: tuple[int, ...] | None = None
    """S of a known density; None for a network, which reads its sizes from the first batch it sees."""
    log_z: float | None = None
    """``log Z`` of a known density, where it is known"""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T, cond (B,...) -> (B,)."""

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
                    f"energy: {type(self).__name__} has no gradient; use a sampler without, as metropolis"
                )
            (gradient,) = torch.autograd.grad(e.sum(), x)
        return e.detach(), gradient

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """N independent exact draws (n,*S) from a known density.

        Raises:
            NotImplementedError: nobody knows how
        """
        raise NotImplementedError(f"{type(self).__name__} has no exact sampler")

    def reference(self) -> Tensor:
        """Stored samples (n,*S) of a known density without exact draws, as from long chains.

        Raises:
            NotImplementedError: there are none
        """
        raise NotImplementedError(f"{type(self).__name__} has no stored samples")

    def positions(self, x: Tensor) -> Tensor:
        """States x (B,*S) -> identical particles (B,n,d), if E stays when they turn, flip, move or change places.

        Raises:
            NotImplementedError: the energy is no such one
        """
        raise NotImplementedError(f"{type(self).__name__} is no energy of particles")

    def convolved(self, variance: float) -> Energy:
        """The energy of ``x + sqrt(variance)*eps``, up to the constant that keeps ``log_z``.

        Raises:
            NotImplementedError: it has no closed form
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form with noise added")

    def conditional(self, x: Tensor, i: int, generator: Generator | None = None) -> Tensor:
        """Draw coordinate i (of the flattened event) given the others: x (B,*S) -> (B,).

        Raises:
            NotImplementedError: the conditionals are not known
        """
        raise NotImplementedError(f"{type(self).__name__} has no known conditionals")

    def __add__(self, other: Energy) -> Energy:
        return Product([self, other])

    def __mul__(self, weight: float) -> Energy:
        return Product([self], [weight])

    __rmul__ = __mul__

    def __truediv__(self, tau: float) -> Energy:
        return self * (1 / tau)

    def __radd__(self, nothing: int) -> Energy:
        return self if nothing == 0 else NotImplemented  # sum() starts from 0


class Product(Energy):
    """A product of experts, ``E = sum_i weight_i * E_i``; a weight alone is an inverse temperature.

    Args:
        experts: the energies, of one event shape
        weights: one for each; null means ones

    Raises:
        ConfigError: there are no experts, their event shapes differ, or there is not one weight for each
    """

    def __init__(self, experts: list[Energy], weights: list[float] | None = None):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.weights = [1.0] * len(experts) if weights is None else [float(w) for w in weights]
        shapes = {e.event_shape for e in experts if e.event_shape is not None}
        if not experts:
            raise ConfigError("experts: give at least one")
        if len(self.weights) != len(experts):
            raise ConfigError(f"weights: {len(self.weights)} of them for {len(experts)} experts; give one for each")
        if len(shapes) > 1:
            raise ConfigError(f"experts: their event shapes differ: {', '.join(map(str, sorted(shapes)))}")
        self.event_shape = next(iter(shapes), None)

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


class Noised(Energy):
    """The value of a chain whose state carries noise: at step t, the energy convolved with N(0, sigma_t^2 I).

    Raises:
        NotImplementedError: the energy has no such closed form
    """

    def __init__(self, energy: Energy, sigmas: Tensor):
        super().__init__()
        self.event_shape = energy.event_shape
        stds: list[float] = sigmas.tolist()
        distinct = list(dict.fromkeys(stds))  # many steps can share a level
        self.levels = nn.ModuleList(energy.convolved(std**2) for std in distinct)
        self.which = [distinct.index(std) for std in stds]

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) all of one step -> (B,)."""
        return self._level(t)(x)  # type: ignore[no-any-return]

    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The convolved energy's own."""
        return self._level(t).with_gradient(x)

    def _level(self, t: Tensor | None) -> Energy:
        assert t is not None
        return self.levels[self.which[int(t[0])]]  # type: ignore[return-value]


class Cost:
    """``J(x (B,*S), t (B,)) -> (B,)``: the value at t < T, the energy at T. The one ``CostToGo`` of dxmi itself.

    Without a value the energy serves at every t, as in the paper's image runs.
    """

    def __init__(self, energy: Energy, value: Energy | None, steps: int, cond: Tensor | None = None):
        self.energy, self.value, self.steps, self.cond = energy, value, steps, cond

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T -> (B,)."""
        if self.value is None:
            return self.energy(x, t, self.cond)  # type: ignore[no-any-return]
        costs = x.new_empty(len(x))
        for player, rows in ((self.energy, t == self.steps), (self.value, t < self.steps)):
            if rows.any():
                costs[rows] = player(x[rows], t[rows], None if self.cond is None else self.cond[rows])
        return costs

    def with_gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``J(x, t)`` (B,) and its gradient (B,*S), detached. The energy is asked where t = T only."""
        ends = t == self.steps
        if self.value is None or ends.all():
            return self.energy.with_gradient(x, t, self.cond)
        if not ends.any():
            return self.value.with_gradient(x, t, self.cond)
        costs, gradients = x.new_empty(len(x)), torch.empty_like(x)
        for player, rows in ((self.energy, ends), (self.value, ~ends)):
            cond = None if self.cond is None else self.cond[rows]
            costs[rows], gradients[rows] = player.with_gradient(x[rows], t[rows], cond)
        return costs, gradients


def with_gradient(cost_to_go: CostToGo, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """``J(x, t)`` (B,) and its gradient (B,*S), detached, for any callable."""
    if isinstance(cost_to_go, Cost):
        return cost_to_go.with_gradient(x, t)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        j = cost_to_go(x, t)
        (gradient,) = torch.autograd.grad(j.sum(), x)
    return j.detach(), gradient
