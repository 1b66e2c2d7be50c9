"""How badly an autoencoder on the unit sphere gives a vector back, as its energy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from torch.nn.modules.lazy import LazyModuleMixin

from dxmi.api import ConfigError, Energy


class Output(LazyModuleMixin, nn.Module):  # type: ignore[misc]
    """A linear layer with as many outputs as the vectors have that it is shown with its first input."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.weight = nn.UninitializedParameter()
        self.bias = nn.UninitializedParameter()

    def initialize_parameters(self, h: Tensor, like: Tensor) -> None:
        """Called by torch before the first ``forward``; a state_dict that was loaded has the sizes already."""
        if self.has_uninitialized_params():
            bound = 1 / math.sqrt(self.width)  # as nn.Linear draws both
            for parameter, shape in ((self.weight, (like.shape[1], self.width)), (self.bias, like.shape[1:])):
                parameter.materialize(shape)  # type: ignore[arg-type]
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, h: Tensor, like: Tensor) -> Tensor:
        """H (B,width), like (B,D) -> (B,D)."""
        return linear(h, self.weight, self.bias)


class SphereAutoencoder(Energy):
    """``E(x) = a^2*||x - xhat(x)||^2/tau``, where latent and ``xhat`` are projected on their unit spheres.

    For events of norm 1: ``E`` is between 0 and ``4*a^2/tau`` and 0 where the vector is given back as it is. As cells
    of feature maps with that energy tell defects (TOOLBOX C, row 37; EBM-VGS). Reads its input size D from the first
    batch; other events are flattened. Train it on ``reconstruction_loss`` first: the game then starts from an energy
    that knows the data.

    Args:
        widths: units of the encoder's hidden layers, positive; the decoder has them in reverse
        latent: units between encoder and decoder, 2 or more
        tau: temperature, positive and finite

    Raises:
        ConfigError: a width is not positive, there are none, latent is below 2, or tau is not positive and finite
    """

    def __init__(self, widths: list[int] | None = None, latent: int = 128, tau: float = 0.1):
        super().__init__()
        widths = [1024, 1024, 1024] if widths is None else widths
        if not widths or min(widths) < 1:
            raise ConfigError("widths", f"{widths} are not one or more positive numbers of units")
        if latent < 2:
            raise ConfigError("latent", f"a sphere needs 2 or more units, not {latent}")
        if not (tau > 0 and math.isfinite(tau)):
            raise ConfigError("tau", f"{tau} is not positive")
        self.tau = tau
        self.encoder = nn.Sequential(nn.LazyLinear(widths[0]), *layers([*widths, latent]))
        self.decoder = nn.Sequential(nn.Linear(latent, widths[-1]), *layers(widths[::-1]), nn.SiLU())
        self.output = Output(widths[0])
        self.a = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """X (B,D) of norm 1 -> (B,)."""
        return self.a.square() * self.error(x) / self.tau

    def reconstruct(self, x: Tensor) -> Tensor:
        """X (B,*S) -> xhat (B,D), of norm 1."""
        x = x.flatten(1)
        z = normalize(self.encoder(x))
        return normalize(self.output(self.decoder(z), x))

    def error(self, x: Tensor) -> Tensor:
        """``||x - xhat||^2``: x (B,*S) -> (B,)."""
        return (x.flatten(1) - self.reconstruct(x)).square().sum(1)

    def reconstruction_loss(self, x: Tensor) -> Tensor:
        """What the autoencoder alone descends before the game, ``mean ||x - xhat||^2``: x (B,*S) -> scalar."""
        return self.error(x).mean()


def layers(widths: list[int]) -> list[nn.Module]:
    """SiLU and a linear layer between each two widths that follow each other."""
    pairs = zip(widths, widths[1:], strict=False)
    return [layer for i, o in pairs for layer in (nn.SiLU(), nn.Linear(i, o))]
