"""A plugin package for dxmi: a ring as an energy, and a sampler that learns to reach it from noise."""

import torch
from torch import nn

from dxmi.api import ConfigError, Energy, GaussianSampler, Transition, randn


class Ring(Energy):
    """A ring in the plane: ``E(x) = (||x|| - radius)^2 / (2 width^2)``.

    Args:
        radius: of the ring
        width: standard deviation across the ring
    """

    event_shape = (2,)  # a known density tells its event shape, since no data do

    def __init__(self, radius: float = 2.0, width: float = 0.2):
        super().__init__()
        if radius < 0 or width <= 0:
            raise ConfigError("ring", "radius is at least 0 and width is positive")
        self.radius, self.width = radius, width

    def forward(self, x, t=None, cond=None):
        """Energies (B,) of x (B,2). A known density uses neither the time nor a condition."""
        return (x.norm(dim=1) - self.radius).square() / (2 * self.width**2)


class Drift(GaussianSampler):
    """``x_{t+1} ~ N(x_t + drift(x_t, t), std_t^2 I)`` from standard normal noise; the drift is a small MLP.

    Args:
        steps: T
        width: units of the two hidden layers
    """

    def __init__(self, steps: int = 4, width: int = 64):
        super().__init__()
        if steps < 1:
            raise ConfigError("drift", "steps is at least 1")
        self.steps = steps
        layers = nn.Linear(2 + steps, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        self.drift = nn.Sequential(*layers)
        self.log_std = nn.Parameter(torch.full((steps,), -1.0))  # the name makes it learn at rate lr.std

    def initial(self, shape, generator=None):
        """x_0 (B,2); all randomness comes from the generator."""
        return randn(shape, self.log_std, generator)

    def forward(self, x, t, cost_to_go, cond=None):
        """The law of x_{t+1} at x_t (B,2), t (B,); time enters as a one-hot vector."""
        time = nn.functional.one_hot(t, self.steps).to(x.dtype)
        return Transition(x + self.drift(torch.cat([x, time], 1)), self.log_std[t].exp()[:, None])
