"""The cost to go tells an energy what it reads: steps, noise levels, or nothing."""

import pytest
import torch

from dxmi.api import Cost, Energy


class Told(Energy):
    """E = t."""

    def forward(self, x, t=None, cond=None):
        return t.float() + 0 * x.sum(1)


@pytest.mark.parametrize(
    ("reads", "levels", "wanted"),
    [
        (False, None, [0.0, 1.0, 2.0]),
        (True, [700.0, 300.0, 0.0], [700.0, 300.0, 0.0]),
        (True, None, [0.0, 0.0, 0.0]),  # a chain that knows of no noise: the energy of clean data all along
    ],
)
def test_what_an_energy_is_told_of_a_step(reads, levels, wanted):
    energy = Told()
    energy.reads_noise = reads
    cost = Cost(energy, None, 2, noise_levels=None if levels is None else torch.tensor(levels))
    x = torch.zeros(3, 2)
    assert cost(x, torch.arange(3)).tolist() == wanted
    assert cost.with_gradient(x, torch.arange(3))[0].tolist() == wanted
    assert energy.final_time(2) == (0 if reads else 2)
