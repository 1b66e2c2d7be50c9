"""The cost to go of a chain: its value before the last step, and the energy at the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dxmi.api.energy import Convolved, Energy
from dxmi.api.errors import ConfigError

CostToGo = Callable[[Tensor, Tensor], Tensor]
"""``J(x (B,*S), t (B,) integer) -> (B,)``, the expected cost from step t on; ``J(x, T) = E(x)``."""


class Noised(Energy):
    """The value of a chain whose state carries noise: at step t, the energy convolved with N(0, sigma_t^2 I).

    Raises:
        ConfigError: the energy has no such closed form
    """

    def __init__(self, energy: Energy, sigmas: Tensor):
        super().__init__()
        if not isinstance(energy, Convolved):
            raise ConfigError(
                "value",
                f"{type(energy).__name__} has no closed form with noise added, so this sampler needs a value with "
                "time of its own",
            )
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

    Args:
        energy: E
        value: V
        steps: T
        cond: conditions (B,...)
        noise_levels: (T+1,) of the steps, for an energy that is told these (``reads_noise``)
    """

    def __init__(
        self,
        energy: Energy,
        value: Energy | None,
        steps: int,
        cond: Tensor | None = None,
        noise_levels: Tensor | None = None,
    ):
        self.energy, self.value, self.steps, self.cond = energy, value, steps, cond
        self.noise_levels = noise_levels

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """X (B,*S), t (B,) integer in 0..T -> (B,)."""
        if self.value is None:
            return self.energy(x, self._told(t), self.cond)  # type: ignore[no-any-return]
        costs = x.new_empty(len(x))
        for player, rows in ((self.energy, t == self.steps), (self.value, t < self.steps)):
            if rows.any():
                costs[rows] = player(x[rows], t[rows], None if self.cond is None else self.cond[rows])
        return costs

    def with_gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``J(x, t)`` (B,) and its gradient (B,*S), detached. The energy is asked where t = T only."""
        ends = t == self.steps
        if self.value is None or ends.all():
            return self.energy.with_gradient(x, self._told(t), self.cond)
        if not ends.any():
            return self.value.with_gradient(x, t, self.cond)
        costs, gradients = x.new_empty(len(x)), torch.empty_like(x)
        for player, rows in ((self.energy, ends), (self.value, ~ends)):
            cond = None if self.cond is None else self.cond[rows]
            costs[rows], gradients[rows] = player.with_gradient(x[rows], t[rows], cond)
        return costs, gradients

    def _told(self, t: Tensor) -> Tensor:
        """What the energy is told of a step t (B,)."""
        if self.noise_levels is not None:
            return self.noise_levels[t]
        return torch.zeros_like(t) if self.energy.reads_noise else t  # of clean data, where nobody knows of noise


def gradient_of(cost_to_go: CostToGo, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """``J(x, t)`` (B,) and its gradient (B,*S), detached, for any callable."""
    if isinstance(cost_to_go, Cost):
        return cost_to_go.with_gradient(x, t)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        j = cost_to_go(x, t)
        (gradient,) = torch.autograd.grad(j.sum(), x)
    return j.detach(), gradient


with_gradient = gradient_of
"""Its name up to 0.1.0; it goes after one release."""
