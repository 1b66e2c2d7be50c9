"""One contract test for every installed plugin, and plugins broken on purpose that the checks have to find."""

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import DIGITS, EXTRACTOR, save_teacher
from torch import Generator, nn

from dxmi.api import DensitySamples, Energy, Evaluator, GaussianSampler, Labelled, Sampler, Scheduler, Transition, randn
from dxmi.config import DataConfig, build_plugin, plugins
from dxmi.data import Images, load_images
from dxmi.testing import check_energy, check_evaluator, check_sampler, check_scheduler

KINDS = {
    "dxmi.energies": Energy,
    "dxmi.schedulers": Scheduler,
    "dxmi.samplers": Sampler,
    "dxmi.evaluators": Evaluator,
}
IMAGES = (1, 8, 8)  # the event shape of plugins that know none themselves
EVENTS = {"sphere_vgs": (8,), "projected": (3, 8, 8)}  # of plugins that take no such images

# What plugins need that have required options; TEACHER becomes the folder of a tiny DDPMPipeline.
OPTIONS = {
    ("dxmi.energies", "callable"): {"function": "test_contracts:half_square", "shape": [2]},
    ("dxmi.energies", "gaussian_mixture"): {"preset": "gmm9"},
    ("dxmi.energies", "mean_free"): {"energy": {"name": "dw4"}},
    ("dxmi.energies", "informed"): {"energy": {"name": "gaussian_mixture", "preset": "gmm9"}, "steps": 4},
    ("dxmi.energies", "mixture"): {"energies": [{"name": "banana"}, {"name": "gaussian_mixture", "preset": "gmm9"}]},
    ("dxmi.energies", "pair_distances"): {"particles": 4, "dimensions": 2},
    ("dxmi.energies", "pairwise_mrf"): {"theta": [[0.0, 1.0, 0.5], [1.0, 0.0, 2.0], [0.5, 2.0, 0.0]]},
    ("dxmi.energies", "product"): {"experts": [{"name": "banana"}, {"name": "mlp"}]},
    ("dxmi.energies", "separable"): {"shape": [2], "steps": 4},
    ("dxmi.energies", "sphere_autoencoder"): {"widths": [16, 16], "latent": 8},
    ("dxmi.energies", "teacher_features"): {"teacher": "TEACHER"},
    ("dxmi.energies", "tempered"): {"energy": {"name": "mlp"}, "tau": 2.0},
    ("dxmi.samplers", "annealed_langevin"): {"sigma_max": 1.0, "levels": 3, "inner": 2},
    ("dxmi.samplers", "diffusion"): {"teacher": "TEACHER", "scheduler": {"name": "ancestral", "steps": 3}},
    ("dxmi.samplers", "gibbs"): {"steps": 5},
    ("dxmi.samplers", "hmc"): {"steps": 5, "leapfrog": 3},
    ("dxmi.samplers", "langevin"): {"steps": 5},
    ("dxmi.samplers", "mala"): {"steps": 10, "warmup": 5},
    ("dxmi.samplers", "metropolis"): {"steps": 5},
    ("dxmi.samplers", "policy"): {"shape": [1, 8, 8], "steps": 3, "frequencies": 4},
    ("dxmi.samplers", "rejection"): {"scale": 1.02, "log_bound": 60.1},  # Z/C of N(0, I) in 64 dimensions is .28
    ("dxmi.samplers", "smc"): {"steps": 4},
    ("dxmi.evaluators", "fidelity"): {"extractor": str(EXTRACTOR), "cache": False},
}
DENSITIES = {"densities": {"name": "gaussian_mixture", "preset": "gmm9"}}  # what evaluators that read no images read
# Teachers are no plugins of a config: a sampler finds them by the pipeline, and tests/teachers has their contract.
INSTALLED = [(group, name) for group in KINDS for name in plugins.installed(group)]
VALUES = [
    ("conv", {"width": 8, "time": True}),
    ("conv", {"width": 8, "time": "noise"}),
    ("mlp", {"time": True}),
    ("mlp", {"time": "noise"}),
    ("teacher_features", {"teacher": "TEACHER", "noised": True, "tune": True}),
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(save_teacher(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def digits():
    """A few images: neither the metrics nor their checks need more."""
    images = load_images(DataConfig(path=str(DIGITS)))
    return Images(images.pixels[:200], images.name)


def half_square(x):
    """What the energy ``callable`` wraps."""
    return x.square().sum(1) / 2


def builder(group, name, teacher):
    """What builds the plugin afresh; it has been built once, so a wrong table is told from a broken contract."""
    options = {k: teacher if v == "TEACHER" else v for k, v in OPTIONS.get((group, name), {}).items()}

    def build():
        return build_plugin(KINDS[group], {"name": name, **options})

    try:
        build()
    except Exception as error:
        pytest.fail(
            f"{group} {name} cannot be built with {options or 'its default options'}: {error}. "
            f"Add what it needs to OPTIONS in {__file__}"
        )
    return build


def check(group, name, build, digits):
    if group == "dxmi.energies":
        check_energy(build, build().event_shape or EVENTS.get(name, IMAGES))
    elif group == "dxmi.samplers":
        check_sampler(build, EVENTS.get(name, IMAGES))
    elif group == "dxmi.schedulers":
        check_scheduler(build)
    elif name == "anomaly":  # it compares no samples but score maps
        labels = torch.arange(20) % 2
        reference = Labelled(torch.zeros(20, 3), labels, masks=labels[:, None, None] * torch.eye(16))
        check_evaluator(build, reference, lambda n: randn((n, 4, 4), torch.empty(0), Generator().manual_seed(0)))
    elif name in DENSITIES:
        energy = build_plugin(Energy, DENSITIES[name])
        reference = DensitySamples(energy, energy.sample(200, Generator().manual_seed(0)))
        check_evaluator(build, reference, lambda n: energy.sample(n, Generator().manual_seed(1)))
    else:
        check_evaluator(build, digits, lambda n: randn((n, *IMAGES), torch.empty(0), Generator().manual_seed(0)))


@pytest.mark.parametrize(("group", "name"), INSTALLED, ids=[f"{g}-{n}" for g, n in INSTALLED])
def test_every_installed_plugin_keeps_its_contract(group, name, teacher, digits):
    check(group, name, builder(group, name, teacher), digits)


@pytest.mark.parametrize(("name", "options"), VALUES)
def test_networks_with_time_keep_the_contract_too(name, options, teacher):
    options = {k: teacher if v == "TEACHER" else v for k, v in options.items()}
    check_energy(lambda: build_plugin(Energy, {"name": name, **options}), IMAGES)


def test_the_built_ins_are_all_tested():
    assert {"conv", "mlp", "ancestral", "diffusion", "fidelity", "densities"} <= {name for _, name in INSTALLED}


def test_an_entry_point_that_cannot_be_built_points_at_the_table(teacher, monkeypatch):
    monkeypatch.delitem(OPTIONS, ("dxmi.samplers", "diffusion"))
    with pytest.raises(pytest.fail.Exception, match="Add what it needs to OPTIONS"):
        builder("dxmi.samplers", "diffusion", teacher)


# Broken on purpose: each class differs from a sound one in one thing, which the check names.
class Bowl(Energy):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 8)

    def forward(self, x, t=None, cond=None):
        return self.linear(x).square().sum(1)


class Column(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x).unsqueeze(1)


class Squeezed(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x).unsqueeze(1).squeeze()


class Detached(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x).detach()


class CutFromX(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x.detach())


class Idle(Bowl):
    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3))


class Unsaved(Bowl):
    def __init__(self):
        super().__init__()
        self.hidden = [torch.randn(2)]

    def forward(self, x, t=None, cond=None):
        return super().forward(x - self.hidden[0])


class Double(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x).double()


class Centred(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x - x.mean(0))


class Random(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x + torch.randn_like(x))


class Infinite(Bowl):
    def forward(self, x, t=None, cond=None):
        return super().forward(x) / 0


class Timeless(Bowl):
    def forward(self, x):
        return super().forward(x)


class Elsewhere(Bowl):
    event_shape = (3,)


class Uphill(Bowl):
    def with_gradient(self, x, t=None, cond=None):
        e, g = super().with_gradient(x, t, cond)
        return e, -g


class Shifted(Bowl):
    def with_gradient(self, x, t=None, cond=None):
        e, g = super().with_gradient(x, t, cond)
        return e + 1, g


class Global(Bowl):
    def sample(self, n, generator=None):
        return torch.randn(n, 2)


class Always(Bowl):
    def sample(self, n, generator=None):
        return torch.zeros(n, 2)


class Flat(Bowl):
    def sample(self, n, generator=None):
        return torch.randn(2 * n, generator=generator)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Column, r"\(4, 1\)|\(1, 1\)"),
        (Squeezed, r"is \(\(\),"),
        (Detached, "reaches x"),
        (CutFromX, "reaches x"),
        (Idle, "reaches idle"),
        (Unsaved, "state_dict"),
        (Double, "float64"),
        (Centred, "other rows"),
        (Random, "chance"),
        (Infinite, "not finite"),
        (Timeless, "TypeError"),
        (Elsewhere, "event_shape"),
        (Uphill, "gradient is not autograd's"),
        (Shifted, "energy is not autograd's"),
        (Global, "generator"),
        (Always, "generator"),
        (Flat, r"sample\(4\) is"),
    ],
)
def test_broken_energies_are_found(broken, complaint):
    check_energy(Bowl, (2,))
    with pytest.raises(AssertionError, match=complaint):
        check_energy(broken, (2,))


class Walk(GaussianSampler):
    steps = 3

    def __init__(self):
        super().__init__()
        self.drift = nn.Linear(2, 2)
        self.log_std = nn.Parameter(torch.randn(3) / 10)

    def initial(self, shape, generator=None):
        return randn(shape, self.log_std, generator)

    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(x + self.drift(x), self.log_std[t].exp()[:, None])


class NoSteps(Walk):
    steps = 0


class HalfSteps(Walk):
    steps = 3.0


class OwnNoise(Walk):
    def step(self, x, t, cost_to_go, generator=None, cond=None):
        return self(x, t, cost_to_go).sample()


class OwnStart(Walk):
    def initial(self, shape, generator=None):
        return torch.randn(shape)


class OneStart(Walk):
    def initial(self, shape, generator=None):
        return torch.zeros(shape)


class OneNoise(Walk):
    def step(self, x, t, cost_to_go, generator=None, cond=None):
        return self(x, t, cost_to_go).mean


class Reseeds(Walk):
    def step(self, x, t, cost_to_go, generator=None, cond=None):
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        return self(x, t, cost_to_go).sample()


class WrongShape(Walk):
    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(self.drift(x)[:, :1], self.log_std[t].exp()[:, None])


class WideStd(Walk):
    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(self.drift(x), self.log_std[t].exp())


class NegativeStd(Walk):
    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(self.drift(x), -self.log_std[t].exp()[:, None])


class DetachedMean(Walk):
    def forward(self, x, t, cost_to_go, cond=None):
        law = super().forward(x, t, cost_to_go)
        return Transition(law.mean.detach(), law.std)


class DetachedStd(Walk):
    def forward(self, x, t, cost_to_go, cond=None):
        law = super().forward(x, t, cost_to_go)
        return Transition(law.mean, law.std.detach())


class Mingled(Walk):
    def forward(self, x, t, cost_to_go, cond=None):
        return super().forward(x - x.mean(0), t, cost_to_go)


class UnsavedDrift(Walk):
    def __init__(self):
        super().__init__()
        self.hidden = [torch.randn(2)]

    def forward(self, x, t, cost_to_go, cond=None):
        return super().forward(x + self.hidden[0], t, cost_to_go)


class Uncopied(Walk):
    def __init__(self):
        super().__init__()
        self.chain = (x for x in ())  # a generator object cannot be copied


class SharedDrift(Walk):
    def __init__(self):
        super().__init__()
        self.move = lambda x: self.drift(x)  # a copy keeps this function, with the original inside

    def forward(self, x, t, cost_to_go, cond=None):
        return Transition(x + self.move(x), self.log_std[t].exp()[:, None])


class SavesNothing(Walk):
    def save_pretrained(self, folder):
        folder.mkdir()


class SavesPickles(Walk):
    def save_pretrained(self, folder):
        folder.mkdir()
        torch.save(self.state_dict(), folder / "model.pt")


class Halves(Walk):
    def decode(self, x):
        return x[::2]


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (NoSteps, "positive int"),
        (HalfSteps, "positive int"),
        (OwnNoise, "two chains with the same seed"),
        (OwnStart, "two chains with the same seed"),
        (OneStart, "x_0 is the same"),
        (OneNoise, "steps are the same"),
        (Reseeds, "global generator"),
        (WrongShape, "stack|shape"),
        (WideStd, "size"),
        (NegativeStd, "not positive"),
        (DetachedMean, "reaches drift"),
        (DetachedStd, "reaches log_std"),
        (Mingled, "other rows"),
        (UnsavedDrift, "state_dict"),
        (Uncopied, "TypeError"),
        (SharedDrift, "deep copy"),
        (SavesNothing, r"files and no pickles, not \[\]"),
        (SavesPickles, "model.pt"),
        (Halves, "decode"),
    ],
)
def test_broken_samplers_are_found(broken, complaint):
    check_sampler(Walk, (2,))
    with pytest.raises(AssertionError, match=complaint):
        check_sampler(broken, (2,))


class Coin(Sampler):
    """Not Gaussian and without noise in its steps, which the contract allows."""

    steps = 1

    def initial(self, shape, generator=None):
        return randn(shape, torch.empty(0), generator)

    def step(self, x, t, cost_to_go, generator=None, cond=None):
        return x.sign()

    def save_pretrained(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")


def test_a_sampler_need_not_be_gaussian():
    check_sampler(Coin, (2,))


class Halving:
    """A scheduler of two nodes that is no diffusers ConfigMixin."""

    def __init__(self, timesteps=(), stds=(0.5, 0.1)):
        self.timesteps, self.stds = timesteps, list(stds)

    def bind(self, levels):
        return type(self)((999, 499), self.stds)

    def transition(self, output, x, t):
        return Transition((x - output) / 2, torch.tensor(self.stds)[t].reshape(-1, 1, 1, 1).to(x))

    def with_stds(self, stds):
        return type(self)(self.timesteps, stds)


class Saved(Halving):
    def save_pretrained(self, folder):
        (Path(folder) / "nodes.json").write_text(json.dumps([self.timesteps, self.stds]))

    @classmethod
    def from_pretrained(cls, folder):
        return cls(*json.loads((Path(folder) / "nodes.json").read_text()))


class Unbound(Halving):
    def bind(self, levels):
        return self


class BindsNothing(Halving):
    def bind(self, levels):
        self.timesteps = (999, 499)


class Flat(Halving):
    def transition(self, output, x, t):
        return Transition((x - output).flatten(1), torch.ones(1))


class Still(Halving):
    def transition(self, output, x, t):
        return Transition(x - output, torch.zeros(1))


class Deaf(Halving):
    def with_stds(self, stds):
        return copy.deepcopy(self)


class InPlace(Halving):
    def with_stds(self, stds):
        self.stds = stds
        return self


class Forgets(Saved):
    @classmethod
    def from_pretrained(cls, folder):
        return cls((999, 499))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Unbound, "no timesteps"),
        (BindsNothing, "AttributeError"),
        (Flat, r"\(4, 64\)"),
        (Still, "not positive"),
        (Deaf, "other stds"),
        (InPlace, "called on"),
        (Forgets, "from_pretrained"),
    ],
)
def test_broken_schedulers_are_found(broken, complaint):
    check_scheduler(Halving)
    check_scheduler(Saved)
    with pytest.raises(AssertionError, match=complaint):
        check_scheduler(broken)


class Mean:
    def __call__(self, draw, reference):
        return {"mean": float(draw(len(reference)).mean())}

    def stamp(self):
        return {"implementation": "mean", "sizes": [1, 8, 8]}


class Tensors(Mean):
    def __call__(self, draw, reference):
        return {"mean": draw(8).mean()}


class Nothing(Mean):
    def __call__(self, draw, reference):
        return {}


class NotANumber(Mean):
    def __call__(self, draw, reference):
        return {"mean": float("nan")}


class Bootstrap(Mean):
    def __call__(self, draw, reference):
        return {"mean": float(draw(64)[torch.randint(64, (8,))].mean())}


class Counts(Mean):
    calls = 0

    def __call__(self, draw, reference):
        self.calls += 1
        return {**super().__call__(draw, reference), f"extra{self.calls}": 1.0}


class Writes(Mean):
    def __call__(self, draw, reference):
        return {"mean": float(draw(8).clamp_(-0.1, 0.1).mean())}


class StampsTuples(Mean):
    def stamp(self):
        return {"sizes": (1, 8, 8)}


class StampsObjects(Mean):
    def stamp(self):
        return {"extractor": object()}


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Tensors, "no finite float"),
        (Nothing, "not named numbers"),
        (NotANumber, "no finite float"),
        (Bootstrap, "two calls differ"),
        (Counts, "two calls differ"),
        (Writes, "writes into the samples"),
        (StampsTuples, "JSON"),
        (StampsObjects, "JSON"),
    ],
)
def test_broken_evaluators_are_found(broken, complaint, digits):
    def draw(n):
        return torch.randn(n, *IMAGES)

    check_evaluator(Mean, digits, draw)
    with pytest.raises(AssertionError, match=complaint):
        check_evaluator(broken, digits, draw)
