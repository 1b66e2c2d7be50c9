"""Value-gradient sampling: noise is carried to samples by the gradients of learned values (MATH 4)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from scipy.linalg import hadamard
from torch import Generator, Tensor, nn

from dxmi.api import ConfigError, CostToGo, Transition, randn
from dxmi.api.noise import per_row

from .guided_chain import GuidedChain, variances
from .mcmc.chain import positive

BOUNDS = (0.02, 4.0)
"""of a posterior variance in units of a step's own, so that a wrong second derivative does little harm"""


class VGS(GuidedChain):
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
        positive(steps=steps, first=first, last=last, tau=tau, start=start)
        if probes is not None and probes < 1:
            raise ConfigError("probes", f"{probes} is not positive", "null takes one for each coordinate")
        if probes is not None and covariance == "fixed":
            raise ConfigError("probes", "they are for covariance: posterior", "leave them out")
        if covariance == "posterior" and draw == "value":
            raise ConfigError("covariance", "posterior belongs to draw: posterior")
        if chain == "vp" and max(first, last) >= 1:
            raise ConfigError("first", f"the variances {first} and {last} of a vp chain have to be below 1")
        s2 = variances(schedule, first, last, steps)
        super().__init__(torch.ones(steps) if chain == "ve" else (1 - s2).rsqrt(), s2, tau, drift, draw, clip)
        self.covariance, self.probes = covariance, probes
        self.per_sample = covariance != "posterior"  # whose probes are random, and not from a generator
        self.log_std = nn.Parameter(torch.tensor(math.log(start)))

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """``sigma_0`` times standard normal noise, (B,*S)."""
        return self.log_std.exp() * randn(shape, self.log_std, generator)

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """x_t (B,*S), t (B,) -> N(a*x - m, (a*s)^2 I) with MATH (4.3) or (4.4), or each coordinate's own variance."""
        if self.covariance == "fixed" or self.training:
            return super().forward(x, t, cost_to_go, cond)
        a, s = (per_row(part[t], x) for part in (self.a, self.s))
        g, h = curvature(cost_to_go, x, t, self.probes or x[0].numel())
        shrunk = (1 - s**2 / self.tau * h).clamp(*BOUNDS)
        return Transition(a * (x - s**2 / self.tau * self.clipped(g, x, t)), a * s * shrunk.sqrt())

    def start_loss(self, cost_to_go: CostToGo, shape: tuple[int, ...]) -> Tensor:
        """MATH (4.6): ``E V_0(sigma_0*eps) - tau*D*log sigma_0``, a scalar with a gradient to sigma_0."""
        x = self.initial(shape)
        value = cost_to_go(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        return value.mean() - self.tau * x[0].numel() * self.log_std

    def noising(self, x_next: Tensor, t: Tensor) -> Transition:
        """The auxiliary chain's law of x_t given x_{t+1} (B,*S): N(x_{t+1}/a, s^2 I)."""
        return Transition(x_next / per_row(self.a[t], x_next), per_row(self.s[t], x_next))

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
        signs = hadamard_rows(min(probes, x[0].numel()), x[0].numel()).to(x)
        h = torch.zeros_like(x)
        for v in signs.view(-1, *x.shape[1:]):
            (product,) = torch.autograd.grad((g * v).sum(), x, retain_graph=True)
            h += v * product
    return g.detach(), h / len(signs)


def hadamard_rows(least: int, columns: int) -> Tensor:
    """The rows of Sylvester's Hadamard matrix, a power of two of them that is ``least`` or more: (rows, columns)."""
    matrix = torch.from_numpy(hadamard(1 << (least - 1).bit_length(), dtype=float))
    return matrix.repeat(1, -(-columns // len(matrix)))[:, :columns]
