"""Value-gradient sampling on the unit sphere: tangent steps and the exponential map (PEERS II)."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from dxmi.api import ConfigError, CostToGo, Noise, Transition, randn

from .guided_chain import GuidedChain, variances
from .mcmc.chain import positive


class SphereStep(Transition):
    """A Gaussian step in the plane that touches the unit sphere at x, carried onto the sphere.

    ``mean`` (B,D) is ``x - m`` in that plane, ``std`` that of the noise along each of its D-1 directions.
    """

    x: Tensor
    """(B,D), of norm 1"""

    def __new__(cls, mean: Tensor, std: Tensor, x: Tensor) -> Self:
        """The step from x (B,D) with the two of ``Transition``."""
        step = super().__new__(cls, mean, std)
        step.x = x
        return step

    def _replace(self, **fields: Any) -> Self:
        """The same step with other fields: exploration widens the std."""
        return type(self)(**{**self._asdict(), **fields}, x=self.x)

    def sample(self, generator: Noise = None) -> Tensor:
        """Points (B,D) of norm 1: ``exp_x(mean - x + std*P_x eps)``."""
        eps = randn(self.mean.shape, self.mean, generator)
        return exponential(self.x, self.mean - self.x + self.std * tangent(self.x, eps))


class SphereVGS(GuidedChain):
    """Value-gradient sampling of ``exp(-E/tau)`` on the unit sphere S^{D-1}, for events (D,) of norm 1.

    ``x' = exp_x(-m + s*P_x eps)`` with ``m = (s^2/tau)*P_x grad V``, where P_x projects on the tangent space at x. The
    noising chain is the same walk without drift, so a = 1 throughout: a larger a would leave the sphere. The start is
    uniform, the law that the noising chain tends to; ``exp(-(D-1)/2*sum s_t^2)`` tells how much of x_T it remembers.
    Nothing but the value learns. x_t given x_T is not Gaussian, and log-weights are not supported yet.

    The running cost of MATH (4.1), ``tau*||m||^2/(2*s^2)``, holds for the curved steps too. The exponential map
    stretches volumes by a function of the distance alone, which is the same seen from x and from x', so the stretch
    cancels between policy and noising chain.

    Args:
        steps: T
        schedule: how ``s_t^2`` (in squared radians) goes from ``first`` to ``last``: constant, linear, quadratic
            (linear in s) or exponential (linear in log s)
        first: s_0^2, of the step that leaves the noise
        last: s_{T-1}^2, of the step that makes the sample
        tau: temperature
        drift: value takes the gradient of the next step's value where x_t lies (MATH 4.3), posterior that of this
            step's value (MATH 4.4), which needs no gradient of the energy
        draw: the drift in use once nothing is learned any more, in ``eval()``; best that of the learning, since no
            log-weights make up for the steps' bias here
        clip: largest norm of a projected gradient in units of ``tau*sqrt(D-1)/sigma_t``; null does not clip

    Raises:
        ConfigError: a variance, the temperature or the clip is not positive
    """

    def __init__(
        self,
        steps: int = 20,
        schedule: Literal["constant", "linear", "quadratic", "exponential"] = "quadratic",
        first: float = 0.3,
        last: float = 0.05,
        tau: float = 1.0,
        drift: Literal["value", "posterior"] = "value",
        draw: Literal["value", "posterior"] = "value",
        clip: float | None = None,
    ):
        positive(steps=steps, first=first, last=last, tau=tau)
        super().__init__(torch.ones(steps), variances(schedule, first, last, steps), tau, drift, draw, clip)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError unless events are vectors of at least 2 numbers."""
        if len(shape) != 1 or shape[0] < 2:
            raise ConfigError("sampler", f"the sphere needs events (D,) with D of 2 or more, not {shape}")

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """Points (B,D) spread uniformly over the sphere."""
        return normalize(randn(shape, self.s, generator))

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> SphereStep:
        """x_t (B,D) of norm 1, t (B,) -> MATH (4.3) or (4.4) with the gradient's tangent part."""
        return SphereStep(*super().forward(x, t, cost_to_go, cond), x)

    def clipped(self, g: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """A value's gradient g along the sphere at x_t, both (B,D), cut to the length that ``clip`` allows."""
        return super().clipped(tangent(x, g), x, t)

    def dimensions(self, x: Tensor) -> int:
        """D-1, those of a tangent plane of points (B,D)."""
        return x.shape[1] - 1

    def start_loss(self, cost_to_go: CostToGo, shape: tuple[int, ...]) -> Tensor:
        """``E V_0`` over the sphere, a scalar; the start has no parameters that could descend it."""
        x = self.initial(shape)
        return cost_to_go(x, torch.zeros(len(x), dtype=torch.long, device=x.device)).mean()

    @torch.no_grad()
    def perturb(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Points x_T (B,D) of norm 1 carried to x_0 (B,D) by that walk, step by step: no closed form needed."""
        for s in self.s.flip(0):
            x = exponential(x, s * tangent(x, randn(x.shape, x, generator)))
        return x


def tangent(x: Tensor, u: Tensor) -> Tensor:
    """``P_x u = u - (x.u) x``: vectors u less their part along x of norm 1, all (B,D)."""
    return u - (x * u).sum(1, keepdim=True) * x


def exponential(x: Tensor, v: Tensor) -> Tensor:
    """``exp_x(v) = cos|v| x + sin|v| v/|v|``, the end of the great circle from x along its tangent v: (B,D).

    Renormalised, since rounding would add up: off the sphere P_x is no projection any more.
    """
    r = v.norm(dim=1, keepdim=True)
    return normalize(r.cos() * x + (r / torch.pi).sinc() * v)  # torch's sinc(z) is sin(pi*z)/(pi*z), 1 at 0
