"""Noise of each sample is its own; what evaluators are given of samples."""

import torch

from dxmi.api import Transition, as_samples, randn
from dxmi.api.noise import CHUNK, generators

N = CHUNK + 40


def test_noise_of_a_list_is_each_generators_own():
    alone = torch.stack([torch.randn(2, generator=g) for g in generators(5, range(3))])
    assert torch.equal(randn((3, 2), torch.zeros(()), generators(5, range(3))), alone)
    law = Transition(torch.zeros(3, 2), torch.ones(()))
    assert torch.equal(law.sample(generators(5, range(3))), alone)
    assert len({g.initial_seed() for seed in (0, 1) for g in generators(seed, range(1000))}) == 2000


def test_a_plain_callable_is_samples_too():
    samples = as_samples(lambda n: torch.arange(n).float()[:, None])
    assert torch.equal(torch.cat(list(samples.batches(N))), samples(N)) and samples.labels(N) is None
    assert torch.equal(samples.rows(N), torch.arange(N)) and samples.reduce(torch.ones(2)).sum() == 2
