"""Samplers whose states are data with noise, and energies that read it, so small that a step is known by hand."""

import math

import torch
from torch import nn

from dxmi.api import Energy, GaussianSampler, Transition, randn
from dxmi.api.noise import per_row


class Shifts(GaussianSampler):
    """x_{k+1} ~ N(x_k + shift_k, std_k^2 I), told to be data with noise at ``levels``, variance-preserving.

    What it is told of its gains is free too.
    """

    def __init__(self, levels=(700.0, 400.0, 200.0), gains=(4.0, 2.0, 0.5), size=2):
        super().__init__()
        self.steps = len(gains)
        self.noise_levels, self.gains = torch.tensor([*levels, 0.0]), torch.tensor(gains)
        self.shift = nn.Parameter(torch.zeros(self.steps, size))
        self.log_std = nn.Parameter(torch.linspace(-1, -2, self.steps))

    def initial(self, shape, generator=None):
        return randn(shape, self.shift, generator)

    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(x + self.shift[t], per_row(self.log_std[t].exp(), x))

    def at_level(self, level):
        angle = level * math.pi / 2000
        return angle.cos(), angle.sin()


class LinearAtNodes(Energy):
    """E = w_k.x + b of node k, which it finds by the noise level that it is told; keeps what it has seen."""

    reads_noise = True

    def __init__(self, sampler):
        super().__init__()
        self.levels, size = sampler.noise_levels[1:], sampler.shift.shape[1]
        self.w = nn.Parameter(torch.randn(sampler.steps, size, generator=torch.Generator().manual_seed(5)))
        self.b = nn.Parameter(torch.full((sampler.steps,), 0.3))
        self.seen = []

    def forward(self, x, t=None, cond=None):
        self.seen.append((x.detach(), t, cond))
        k = (t[:, None] - self.levels).abs().argmin(1)
        return (self.w[k] * x).sum(1) + self.b[k]


class Denoiser(nn.Module):
    """What is learned of samples: their mean."""

    def __init__(self, mean):
        super().__init__()
        self.mean = nn.Parameter(torch.full((2,), mean))

    def forward(self, x, alpha, sigma):
        return clean_gaussian(x, alpha, sigma, self.mean)


class KnowsGaussians(Shifts):
    """With a teacher of N(1, .5^2 I), and a score network that starts as it and learns another mean."""

    MEAN = 1.0

    def score_network(self):
        return Denoiser(self.MEAN)

    def denoised(self, x, level, cond=None, network=None):
        alpha, sigma = (per_row(part, x) for part in self.at_level(level))
        if network is None:
            return clean_gaussian(x, alpha, sigma, self.MEAN)
        return network(x, alpha, sigma)


def clean_gaussian(x, alpha, sigma, mean, std=0.5):
    """The mean of data N(mean, std^2 I), given them with noise."""
    return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
