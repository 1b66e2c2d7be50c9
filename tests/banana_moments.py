"""Chains against the known moments of a banana."""

import math

import torch
from dxmi_plugins.energies.known.banana import Banana
from torch import Generator

from dxmi.api import Cost
from dxmi.chains import walk


def scores(sampler, n, skip):
    """Chains on ``Banana(b=.5)``: how many standard errors the means of five moments lie from the truth.

    Each of n chains is one observation; their first ``skip`` states do not count.
    """
    sums, cost = torch.zeros(5, n), Cost(Banana(b=0.5), None, sampler.steps)
    for k, x in enumerate(walk(sampler, cost, (n, 2), Generator().manual_seed(0))):
        if k > skip:
            u, v = x.unbind(1)
            sums += torch.stack([u, v, u * u, v * v, u * u * v])
    means = sums / (sampler.steps - skip)
    truth = torch.tensor([0, 0, 1, 1 + 2 * 0.5**2, 2 * 0.5])
    return (means.mean(1) - truth) / (means.std(1) / math.sqrt(n))
