"""Value-gradient sampling: noise is carried to samples by the gradients of learned values (MATH 4)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from dxmi.api import ConfigError, CostToGo, GaussianSampler, Transition, gradient_of, randn

from .mcmc.chain import rows
from .mcmc.langevin import clipped

BOUNDS = (0.02, 4.0)
"""of a posterior variance in units of a step's own, so that a wrong second derivative does little harm"""


class VGS(GaussianSampler):
    """A chain of T Gaussian steps on ``exp(-E/tau)`` whose drift is the gradient of a value (MATH 4).

    With the auxiliary noising chain ``x_t = x_{t+1}/a_t + s_t*eps`` the best drift is known, and the value that gives
    it is the soft optimal cost to go. The sampler's own parameters are the std of its start alone.

    Args:
        steps: T
        chain: ve keeps the scale of the state (a = 1); vp shrinks it towards noise, a = 1/sqrt(1 - s^2)
        schedule: how ``s_t^2`` goes from ``first`` to ``last``: constant, linear, quadratic (linear in s) or
            exponential (linear in log s)
        first: s_0^2, of the step that leaves the noise
        last: s_{T-1}^2, of the step that makes the sample
        tau: temperature
        start: std of the normal start x_0, learned from there
        drift: value takes the gradient of the next step's value where the mean would lie without drift (the paper,
            MATH 4.3), which explores better; posterior takes the gradient of this step's value (MATH 4.4), which needs
            no gradient of the energy and weighs better
        draw: the drift in use once nothing is learned any more, in ``eval()``
        covariance: of the steps in ``eval()``; fixed has the std a*s, posterior each coordinate's variance given the
            state, ``a^2*(s^2 - s^4*d^2V/dx_i^2/tau)`` (Tweedie's second order), which weighs better; it is held between
            .02 and 4 times the fixed one
        probes: second derivatives taken of V at a state for ``posterior``, rounded up to a power of two; null takes as
            many as there are coordinates, which is exact, and fewer mix coordinates that are that many places apart.
            One is exact for a sum over coordinates
        clip: largest norm of a gradient in units of ``tau*sqrt(D)/sigma_t``, its size where the state is the noise of
            step t alone; 3 lets right values pass and holds wrong ones; null does not clip

    Raises:
        ConfigError: a variance or a temperature is not positive, or a vp variance is not below 1
    """

    value_guided = True

    def __init__(
        self,
        steps: int = 20,
        chain: Literal["ve", "vp"] = "vp",
        schedule: Literal["constant", "linear", "quadratic", "exponential"] = "quadratic",
        first: float = 0.2,
        last: float = 0.1,
        tau: float = 1.0,
        start: float = 1.0,
        drift: Literal["value", "posterior"] = "value",
        draw: Literal["value", "posterior"] = "posterior",
        covariance: Literal["fixed", "posterior"] = "fixed",
        probes: int | None = None,
        clip: float | None = None,
    ):
        super().__init__()
        for name, value in {"steps": steps, "first": first, "last": last, "tau": tau, "start": start}.items():
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(name, f"{value} is not positive")
        if clip is not None and not clip > 0:
            raise ConfigError("clip", f"{clip} is not positive", "null does not clip")
        if probes is not None and probes < 1:
            raise ConfigError("probes", f"{probes} is not positive", "null takes one for each coordinate")
        if probes is not None and covariance == "fixed":
            raise ConfigError("probes", "they are for covariance: posterior", "leave them out")
        if covariance == "posterior" and draw == "value":
            raise ConfigError("covariance", "posterior belongs to draw: posterior")
        if chain == "vp" and max(first, last) >= 1:
            raise ConfigError("first", f"the variances {first} and {last} of a vp chain have to be below 1")
        self.steps, self.tau, self.drift, self.draw, self.clip = steps, tau, drift, draw, clip
        self.covariance, self.probes = covariance, probes
        self.per_sample = covariance != "posterior"  # whose probes are random, and not from a generator
        s2 = variances(schedule, first, last, steps)
        self.a: Tensor
        self.s: Tensor
        self.register_buffer("a", torch.ones(steps) if chain == "ve" else (1 - s2).rsqrt())
        self.register_buffer("s", s2.sqrt())
        alpha, sigma2 = 1 / self.a.flip(0).cumprod(0).flip(0), torch.zeros(steps)
        for t in reversed(range(steps)):  # x_t = x_{t+1}/a + s*eps
            sigma2[t] = s2[t] + (sigma2[t + 1] / self.a[t] ** 2 if t + 1 < steps else 0)
        self.alpha: Tensor
        self.sigma: Tensor
        self.register_buffer("alpha", alpha, persistent=False)
        self.register_buffer("sigma", sigma2.sqrt(), persistent=False)
        self.log_std = nn.Parameter(torch.tensor(math.log(start)))

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """``sigma_0`` times standard normal noise, (B,*S)."""
        return self.log_std.exp() * randn(shape, self.log_std, generator)

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """x_t (B,*S), t (B,) -> N(a*x - m, (a*s)^2 I) with MATH (4.3) or (4.4)."""
        a, s = (rows(part[t], x) for part in (self.a, self.s))
        if self.covariance == "posterior" and not self.training:
            g, h = curvature(cost_to_go, x, t, self.probes or x[0].numel())
            shrunk = (1 - s**2 / self.tau * h).clamp(*BOUNDS)
            return Transition(a * (x - s**2 / self.tau * self.clipped(g, x, t)), a * s * shrunk.sqrt())
        if (self.drift if self.training else self.draw) == "value":
            _, g = gradient_of(cost_to_go, a * x, t + 1)
            m = (a * s) ** 2 / self.tau * self.clipped(g, x, t)
        else:
            _, g = gradient_of(cost_to_go, x, t)
            m = a * s**2 / self.tau * self.clipped(g, x, t)
        return Transition(a * x - m, a * s)

    def clipped(self, g: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """A value's gradient g at x_t, both (B,*S), cut to the length that ``clip`` allows."""
        if self.clip is None:
            return g
        return clipped(g, self.clip * self.tau * math.sqrt(self.dimensions(x)) / self.sigma[t])

    def dimensions(self, x: Tensor) -> int:
        """D, in how many directions a state x (B,*S) can go."""
        return x[0].numel()

    def running_cost(self, x: Tensor, t: Tensor, step: Transition) -> Tensor:
        """MATH (4.1): ``tau*(||m||^2/(2*sigma^2) - D*log a)``, (B,), in closed form."""
        m = rows(self.a[t], x) * x - step.mean
        quadratic = (m / step.std).square().flatten(1).sum(1) / 2
        return self.tau * (quadratic - x[0].numel() * self.a[t].log())

    def start_loss(self, cost_to_go: CostToGo, shape: tuple[int, ...]) -> Tensor:
        """MATH (4.6): ``E V_0(sigma_0*eps) - tau*D*log sigma_0``, a scalar with a gradient to sigma_0."""
        x = self.initial(shape)
        value = cost_to_go(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        return value.mean() - self.tau * x[0].numel() * self.log_std

    def noising(self, x_next: Tensor, t: Tensor) -> Transition:
        """The auxiliary chain's law of x_t given x_{t+1} (B,*S): N(x_{t+1}/a, s^2 I)."""
        return Transition(x_next / rows(self.a[t], x_next), rows(self.s[t], x_next))

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """That chain run from the end: x_t given x_T is N(alpha*x_T, sigma^2 I); both like t (B,)."""
        return self.alpha[t], self.sigma[t]

    def start_law(self, like: Tensor) -> Transition:
        """The law of x_0, N(0, sigma_0^2 I), for states like (B,*S)."""
        return Transition(torch.zeros_like(like), self.log_std.exp())


def curvature(cost_to_go: CostToGo, x: Tensor, t: Tensor, probes: int) -> tuple[Tensor, Tensor]:
    """The gradient of J at x (B,*S) and the diagonal of its Hessian, both (B,*S) and detached.

    Rows v of a Hadamard matrix give the diagonal as the mean of ``v*Hv`` (Bekas, Kokiopoulou and Saad 2007): what is
    not on the diagonal cancels but between coordinates whose numbers differ by a multiple of the number of rows.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(cost_to_go(x, t).sum(), x, create_graph=True)
        signs = hadamard(min(probes, x[0].numel()), x[0].numel()).to(x)
        h = torch.zeros_like(x)
        for v in signs.view(-1, *x.shape[1:]):
            (product,) = torch.autograd.grad((g * v).sum(), x, retain_graph=True)
            h += v * product
    return g.detach(), h / len(signs)


def hadamard(least: int, columns: int) -> Tensor:
    """The first rows of Sylvester's Hadamard matrix, the power of two that is ``least`` or more, (rows, columns)."""
    matrix = torch.ones(1, 1)
    while len(matrix) < least:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix.repeat(1, -(-columns // len(matrix)))[:, :columns]


def variances(schedule: str, first: float, last: float, steps: int) -> Tensor:
    """s_t^2 for t = 0..T-1, (T,)."""
    if schedule == "constant":
        return torch.full((steps,), first)
    if schedule == "linear":
        return torch.linspace(first, last, steps)
    if schedule == "quadratic":
        return torch.linspace(math.sqrt(first), math.sqrt(last), steps).square()
    return torch.logspace(math.log10(first), math.log10(last), steps)
