"""What players can do is said by Protocols, for those of plugins written before there were any too."""

import copy

import pytest
import torch
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.energies.known.callable import CallableEnergy
from dxmi_plugins.energies.known.combinators import Mixture, Tempered
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.energies.known.mean_free import MeanFree
from dxmi_plugins.energies.known.particles import DW4, LennardJones
from dxmi_plugins.energies.known.wells import DoubleWell
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.mcmc.mala import MALA
from dxmi_plugins.samplers.policy import GaussianPolicy
from dxmi_plugins.samplers.sphere_vgs import SphereVGS
from dxmi_plugins.samplers.vgs import VGS

from dxmi.api import (
    Conditionals,
    Convolved,
    Cost,
    Energy,
    ExactDraws,
    FromPipeline,
    GaussianSampler,
    Imitates,
    KnownStart,
    KnowsPaths,
    KnowsScore,
    Marginals,
    NoisedData,
    Noising,
    Particles,
    Perturbs,
    StoredDraws,
    Transition,
    ValueGuided,
)
from dxmi.chains.importance import weigh
from dxmi.game.rollouts import perturb

OF_ENERGIES = {Conditionals, Convolved, ExactDraws, Particles, StoredDraws}
OF_SAMPLERS = {FromPipeline, Imitates, KnownStart, KnowsPaths, KnowsScore, Marginals, Noising, Perturbs, ValueGuided}
EIGHT = {"preset": "eight_gaussians"}


def unknown():
    return CallableEnergy(lambda x: x.square().sum(1), [2], 0.0)


@pytest.mark.parametrize(
    ("build", "able"),
    [
        (lambda: MLPEnergy(4), set()),
        (lambda: GaussianMixture(**EIGHT), {Conditionals, Convolved, ExactDraws}),
        (lambda: Banana(), {ExactDraws}),
        (lambda: Banana() + Banana(), set()),
        (lambda: Tempered(Banana(), 1.0), {ExactDraws}),
        (lambda: Tempered(Banana(), 2.0), set()),
        (lambda: Mixture([Banana(), GaussianMixture(**EIGHT)]), {ExactDraws}),
        (lambda: Mixture([GaussianMixture(**EIGHT)] * 2), {Convolved, ExactDraws}),
        (lambda: Mixture([Banana(), unknown()]), set()),
        (lambda: DW4(), {Particles, StoredDraws}),
        (lambda: MeanFree(DW4()), {Particles, StoredDraws}),
        (lambda: MeanFree(LennardJones(4)), {Particles}),
        (lambda: MeanFree(DoubleWell(4)), set()),
    ],
)
def test_a_density_can_do_what_it_is_made_of_can(build, able):
    """A copy can the same, and does it with its own parts."""
    energy = build()
    for each in (energy, copy.deepcopy(energy)):
        assert {kind for kind in OF_ENERGIES if isinstance(each, kind)} == able
    if ExactDraws in able:
        assert energy.sample(3).shape == (3, 2)


def test_a_copy_of_a_mixture_draws_in_its_own_precision():
    mixture = Mixture([Banana(), Banana()])
    assert copy.deepcopy(mixture).double().sample(2).dtype == torch.float64 and mixture.sample(2).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "able"),
    [
        (MALA, set()),
        (GaussianPolicy, {KnownStart, Marginals}),
        (VGS, {KnownStart, Marginals, Noising, ValueGuided}),
        (SphereVGS, {Perturbs, ValueGuided}),
        (DiffusionSampler, {FromPipeline, Imitates, KnowsPaths, KnowsScore}),
    ],
)
def test_a_sampler_has_no_method_that_it_cannot_do(kind, able):
    assert {of for of in OF_SAMPLERS if issubclass(kind, of)} == able


def test_only_those_whose_states_are_data_with_noise_say_so():
    """Which is what the value by contrast needs; to know a noising chain of one's own is not enough."""
    assert isinstance(GaussianPolicy([2]), NoisedData)
    assert not any(isinstance(sampler, NoisedData) for sampler in (VGS(3), SphereVGS(), MALA(), Before()))


class Before(GaussianSampler):
    """A plugin of 0.1: it overrode what the base class raised NotImplementedError for."""

    steps, value_guided = 1, True

    def initial(self, shape, generator=None):
        return torch.randn(shape, generator=generator)

    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(x, torch.ones(()))

    def running_cost(self, x, t, step):
        return torch.zeros(len(x))

    def start_loss(self, cost_to_go, shape):
        return torch.zeros(())

    def noising(self, x_next, t):
        return Transition(x_next, torch.ones(()))

    def start_law(self, like):
        return Transition(torch.zeros_like(like), torch.ones(()))

    def marginal(self, t):
        return torch.ones(len(t)), torch.ones(len(t))


class Plain(Energy):
    event_shape = (2,)

    def forward(self, x, t=None, cond=None):
        return x.square().sum(1) / 2

    def sample(self, n, generator=None):
        return torch.randn(n, 2, generator=generator)


def test_plugins_of_before_keep_working():
    sampler = Before()
    assert all(isinstance(sampler, kind) for kind in (ValueGuided, Noising, Marginals, KnownStart))
    assert isinstance(Plain(), ExactDraws) and not isinstance(Plain(), Convolved)
    assert weigh(sampler, Cost(Plain(), None, 1), 4).log_w.shape == (4,)
    assert perturb(sampler, torch.zeros(5, 2)).shape == (5, 2)  # by its marginal
