"""Annealed sequential Monte Carlo (Del Moral, Doucet and Jasra 2006): samples and an unbiased Z."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, Cost, CostToGo, Energy, gradient_of

from .chain import Chain, Point, positive, sum_square
from .hmc import HMC


class Tempered(Energy):
    """``E_beta = (1 - beta)*E_0 + beta*E/tau`` with ``E_0 = -log N(x; 0, scale^2 I)`` and E what a chain ends on."""

    steps: int

    def __init__(self, cost_to_go: CostToGo, steps: int, scale: float, tau: float, beta: float):
        super().__init__()
        self.cost_to_go, self.steps = cost_to_go, steps
        self.scale, self.tau, self.beta = scale, tau, beta

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,*S) -> (B,)."""
        return (1 - self.beta) * self.base(x) + self.beta / self.tau * self.cost_to_go(x, self.end(x))

    def with_gradient(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The gradient of E_0 in closed form, that of E as it knows best."""
        return self.join(x, *gradient_of(self.cost_to_go, x, self.end(x)))[1:]

    def join(self, x: Tensor, e: Tensor, g: Tensor) -> Point:
        """What is known at x (B,*S) where E and its gradient, (B,) and (B,*S), are known."""
        share = self.beta / self.tau
        gradient = (g * share).add_(x, alpha=(1 - self.beta) / self.scale**2)
        return Point(x, (1 - self.beta) * self.base(x) + share * e, gradient)

    def base(self, x: Tensor) -> Tensor:
        """E_0: (B,*S) -> (B,)."""
        return sum_square(x / self.scale) / 2 + x[0].numel() / 2 * math.log(2 * math.pi * self.scale**2)

    def end(self, x: Tensor) -> Tensor:
        """T for each particle, (B,)."""
        return torch.full((len(x),), self.steps, device=x.device)


class SMC(Chain):
    """Particles carried from N(0, scale^2 I) to ``exp(-E/tau)`` through ``E_k = (1 - beta_k)*E_0 + beta_k*E/tau``.

    Step k weighs the particles by ``exp(E_{k-1} - E_k)``, resamples them where the weights are too uneven, and moves
    each by Hamiltonian Monte Carlo, which leaves E_k's density as it is. After the last step all weights are equal. The
    mean of ``exp(log_z)`` over runs is ``Z = int exp(-E/tau)`` exactly, however few the particles, since no step size
    is adapted to them: level k's is ``1/h^2 = (1 - beta_k)*sqrt(D)/scale^2 + beta_k/step_size^2``.

    Args:
        steps: T, number of levels
        scale: std of the normal start; it should cover the density
        moves: HMC moves at each level
        step_size: leapfrog step on the density itself
        leapfrog: leapfrog steps in a move, each of one energy and gradient; 1 is MALA
        power: beta_k = (k/T)^power; larger takes smaller steps at the start
        threshold: resample where the effective share of the particles falls below it; 0 only does at the end
        tau: temperature

    Raises:
        ConfigError: an option is out of its range
    """

    stationary = False
    independent = False

    def __init__(
        self,
        steps: int = 50,
        scale: float = 1.0,
        moves: int = 2,
        step_size: float = 0.5,
        leapfrog: int = 1,
        power: float = 2.0,
        threshold: float = 0.5,
        tau: float = 1.0,
    ):
        positive(scale=scale, moves=moves, power=power)
        super().__init__(steps, scale, tau)
        if not 0 <= threshold <= 1:
            raise ConfigError("threshold", f"{threshold} is no share of the particles", "give 0..1")
        self.scale, self.moves, self.power, self.threshold = scale, moves, power, threshold
        self.step_size = step_size
        self.kernel = HMC(steps, step_size, leapfrog)
        self.log_w = torch.empty(0)
        self.log_z = 0.0
        self.ess: list[float] = []
        self.acceptances: list[float] = []
        self.resampled = 0

    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """Particles (B,*S) at level k -> those at level k+1."""
        if k == 0:
            self.log_w, self.log_z = torch.zeros(len(x), device=x.device, dtype=x.dtype), 0.0
            self.ess, self.acceptances, self.resampled = [], [], 0
        before, beta = (((j / self.steps) ** self.power) for j in (k, k + 1))
        path = Tempered(cost_to_go, self.steps, self.scale, self.tau, beta)
        e, g = gradient_of(cost_to_go, x, self.end(x))
        rise = e / self.tau - path.base(x)
        rise = torch.where(rise.isnan(), math.inf, rise)  # a particle whose energy is not a number dies
        self.log_w = self.log_w - (beta - before) * rise
        weights = self.normalised(k)
        self.ess.append(1 / weights.square().sum().item())
        if self.ess[-1] < self.threshold * len(x) or k + 1 == self.steps:
            x, e, g = self.resample(weights, generator, x, e, g)
        return self.moved(path.join(x, e, g), path, generator)

    def normalised(self, k: int) -> Tensor:
        """Weights (B,) that sum to one.

        Raises:
            FloatingPointError: there is no particle left
        """
        if not self.log_w.max().isfinite():
            raise FloatingPointError(f"no particle has a finite energy at level {k + 1}; try another scale")
        return self.log_w.softmax(0)

    def resample(self, weights: Tensor, generator: Generator | None, *parts: Tensor) -> list[Tensor]:
        """Draw as many particles by weight, collect what the weights say about Z, and make them equal."""
        self.log_z += self.log_w.double().logsumexp(0).item() - math.log(len(weights))
        self.log_w = torch.zeros_like(self.log_w)
        self.resampled += 1
        chosen = systematic(weights, generator)
        # Indexing the last dimension keeps a particle's numbers apart in memory, see chains_last.
        return [part.movedim(0, -1).index_select(-1, chosen).movedim(-1, 0) for part in parts]

    def moved(self, now: Point, path: Tempered, generator: Generator | None) -> Tensor:
        """``moves`` steps of HMC on one level."""
        base_size = self.scale / now.x[0].numel() ** 0.25
        self.kernel.begin(now.x)
        self.kernel.step_size = ((1 - path.beta) / base_size**2 + path.beta / self.step_size**2) ** -0.5
        x, cost = now.x, Cost(path, None, self.steps)
        self.kernel.remember(now, cost)
        for _ in range(self.moves):
            x = self.kernel.move(x, self.steps, cost, generator)
        self.acceptances.append(self.kernel.report()["acceptance"].mean().item())
        return x

    def report(self) -> dict[str, Any]:
        """``log_z``; effective particles at the last level and least of all levels; mean and least acceptance."""
        if not self.ess:
            return {}
        return {
            "log_z": self.log_z,
            "ess": self.ess[-1],
            "ess_least": min(self.ess),
            "resampled": self.resampled,
            "acceptance": sum(self.acceptances) / len(self.acceptances),
            "acceptance_least": min(self.acceptances),
        }


def systematic(weights: Tensor, generator: Generator | None = None) -> Tensor:
    """Indices (B,) of B particles of normalised weights (B,), each drawn floor(B*w) or ceil(B*w) times."""
    total = weights.double().cpu().cumsum(0)
    device = "cpu" if generator is None else generator.device
    u = torch.rand((), generator=generator, device=device, dtype=torch.float64).cpu()
    ticks = (torch.arange(len(weights)) + u) / len(weights)
    chosen = torch.searchsorted(total / total[-1], ticks).clamp(max=len(weights) - 1)
    return chosen.to(weights.device)
