"""A Gaussian policy from random weights: the diffusion policy of MATH 3 for vectors, without a teacher."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from dxmi.api import ConfigError, CostToGo, GaussianSampler, Transition, noise_level, randn
from dxmi.api.noise import per_row
from dxmi.api.schedule import PURE_NOISE
from dxmi_plugins.energies.layers import Activation, TimeEmbedding, act, features

from .guided_chain import variances


class GaussianPolicy(GaussianSampler):
    """A chain of T Gaussian steps towards what a network takes for the end of the chain (TOOLBOX row 28).

    Steps follow the reverse of ``x_t = x_{t+1} + s_t*eps``: with ``sigma_t^2`` the sum of the variances from t on, the
    mean is ``x + (s_t/sigma_t)^2*(f(x, t) - x)`` and the std, which learns, starts as ``s_t*sigma_{t+1}/sigma_t``, as
    if f knew the end (MATH 2.1), and in the last step, where that is 0, as ``s_t/2``. The start is
    N(0, (sigma_0^2 + scale^2) I).

    Args:
        shape: S of the events
        steps: T
        schedule: how ``s_t^2`` goes from ``first`` to ``last``, as of vgs
        first: s_0^2, of the step that leaves the noise
        last: s_{T-1}^2, of the step that makes the sample
        scale: std of the data, roughly
        width: units of a hidden layer of f
        depth: number of hidden layers of f
        frequencies: number of random Fourier features that f sees beside x; 0 for none
        bandwidth: std of those frequencies, in radians a unit of x
        activation: of f's hidden layers

    Raises:
        ConfigError: an option is not positive
    """

    per_sample = True

    def __init__(
        self,
        shape: list[int],
        steps: int = 10,
        schedule: Literal["constant", "linear", "quadratic", "exponential"] = "exponential",
        first: float = 1.0,
        last: float = 0.01,
        scale: float = 1.0,
        width: int = 128,
        depth: int = 3,
        frequencies: int = 0,
        bandwidth: float = 1.0,
        activation: Activation = "silu",
    ):
        super().__init__()
        given = {"steps": steps, "first": first, "last": last, "scale": scale, "width": width, "depth": depth}
        for name, value in given.items():
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(name, f"{value} is not positive")
        if not shape or min(shape) < 1:
            raise ConfigError("shape", f"{shape} is no event shape", "give one positive number or more")
        self.shape, self.steps = tuple(shape), steps
        s2 = variances(schedule, first, last, steps)
        sigma2 = s2.flip(0).cumsum(0).flip(0)
        self.sigma: Tensor
        self.register_buffer("sigma", sigma2.sqrt(), persistent=False)
        self.share: Tensor
        self.register_buffer("share", s2 / sigma2, persistent=False)
        self.start = math.sqrt(sigma2[0].item() + scale**2)
        left = torch.cat([sigma2[1:] / sigma2[:-1], torch.tensor([0.25])])  # the last step would have none
        self.log_std = nn.Parameter((s2 * left).log() / 2)
        entries = math.prod(shape)
        self.features = features(frequencies, bandwidth, entries)
        self.stem = nn.Linear(entries + 2 * frequencies, width)
        self.time = TimeEmbedding(width)
        hidden = [layer for _ in range(depth - 1) for layer in (act(activation), nn.Linear(width, width))]
        self.body = nn.Sequential(*hidden, act(activation), nn.Linear(width, entries))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ConfigError if the data have another event shape."""
        if shape != self.shape:
            raise ConfigError("sampler.shape", f"{list(self.shape)} is not the data's, {list(shape)}")

    def initial(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """Normal noise as wide as noised data, (B,*S)."""
        return self.start * randn(shape, self.log_std, generator)

    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """x_t (B,*S), t (B,) -> the law of x_{t+1}."""
        share, std = (per_row(part[t], x) for part in (self.share, self.log_std.exp()))
        end = self.body(self.stem(self.features(x.flatten(1))) + self.time(t, x)).view_as(x)
        return Transition(x + share * (end - x), std)

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The chain that the steps reverse: x_t given the end x_T is N(x_T, sigma_t^2 I)."""
        return torch.ones_like(self.sigma[t]), self.sigma[t]

    @property
    def noise_levels(self) -> Tensor:
        """(T+1,) of the noising chain, the last one 0 (MATH 3.7)."""
        sigma = torch.cat([self.sigma, self.sigma.new_zeros(1)])
        return noise_level(torch.ones_like(sigma), sigma)

    @property
    def gains(self) -> Tensor:
        """(T,) how far the mean of each step moves with f (MATH 3.9)."""
        return self.share

    def at_level(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """1 and ``sigma``, like level (B,) in [0, 1000]; sigma is at most sigma_0."""
        known = level.minimum(self.noise_levels[0].to(level))
        return torch.ones_like(level), (known * (math.pi / 2 / PURE_NOISE)).tan()

    def start_law(self, like: Tensor) -> Transition:
        """The law of x_0 for states like (B,*S)."""
        return Transition(torch.zeros_like(like), torch.as_tensor(self.start).to(like))
