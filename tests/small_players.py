"""Samplers and energies so small that what a game makes of them is known by hand."""

import math

import torch
from torch import nn

from dxmi.api import Energy, GaussianSampler, Transition


class LinearChain(GaussianSampler):
    """x_{t+1} ~ N(a x_t, std^2), the linear-quadratic chain."""

    def __init__(self, a=0.8, std=0.5, steps=3):
        super().__init__()
        self.a, self.std, self.steps = a, std, steps

    def initial(self, shape, generator=None):
        return torch.randn(shape, generator=generator)

    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(self.a * x, torch.full((len(x), 1), self.std))


class OneStep(GaussianSampler):
    """pi = N(m, std^2) in one step, whatever the noise was."""

    steps = 1

    def __init__(self):
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def initial(self, shape, generator=None):
        return torch.randn(shape, generator=generator)

    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(self.mean.expand_as(x), self.log_std.exp().expand_as(x))


class Quadratic(Energy):
    """E = k (x - m)^2 / 2, so q = N(m, 1/k)."""

    def __init__(self):
        super().__init__()
        self.log_k, self.m = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x, t=None, cond=None):
        return (self.log_k.exp() * (x - self.m).square() / 2).sum(1)


class Pushed(Energy):
    """The optimal values of a mixture: -tau*log of the target pushed through the noising chain (MATH 4.5)."""

    def __init__(self, target, sampler):
        super().__init__()
        self.levels, scale, variance = [], 1.0, 0.0  # x_t = scale*x_T + N(0, variance)
        for a, s in zip(sampler.a.flip(0).tolist(), sampler.s.flip(0).tolist(), strict=True):
            scale, variance = scale / a, variance / a**2 + s**2
            self.levels.insert(0, (target.convolved(variance / scale**2), scale))

    def forward(self, x, t=None, cond=None):
        energies = torch.stack([e(x / scale) + x.shape[1] * math.log(scale) for e, scale in self.levels])
        return energies.gather(0, t[None]).squeeze(0)
