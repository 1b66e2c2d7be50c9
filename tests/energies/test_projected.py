"""The critic on a frozen network that knows photographs, with that network's real weights."""

import copy
from importlib.util import find_spec

import pytest
import torch
from dxmi_plugins.backbones import efficientnet_lite0
from safetensors.torch import load_file

from dxmi.api import ConfigError, Energy
from dxmi.config import build_plugin
from dxmi.runs import load_energy, save_energy

WIDTH = 8


@pytest.fixture
def energy():
    if find_spec(efficientnet_lite0.PACKAGE) is None:  # found and not run, as the backbone does
        pytest.skip("needs the extra efficientnet")
    torch.manual_seed(0)
    energy = build_plugin(Energy, {"name": "projected", "width": WIDTH, "size": 32})
    energy(images())
    return energy


def images(n=3, side=16):
    return torch.rand(n, 3, side, side + 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


LEVELS = torch.tensor([0.0, 300.0, 900.0])


def test_the_heads_learn_and_the_network_and_its_mixes_do_not(energy):
    x = images().requires_grad_()
    e = energy.train()(x, LEVELS)
    (gradient,) = torch.autograd.grad(e.sum(), x, create_graph=True)
    (e.sum() + gradient.square().sum()).backward()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    learns = {name for name, p in energy.named_parameters() if p.requires_grad}
    assert learns == {name for name, p in energy.named_parameters() if name.startswith("head.")}
    assert all(p.grad is not None and p.grad.any() for name, p in energy.named_parameters() if name in learns)
    assert torch.equal(energy.eval()(x, LEVELS), e)  # no statistics of the batch


def test_it_is_told_the_level(energy):
    same = images(1).expand(3, -1, -1, -1)
    assert energy.reads_noise and len(set(energy(same, LEVELS).tolist())) == 3
    assert torch.equal(energy(same), energy(same, torch.zeros(3)))


def test_four_resolutions_are_seen_and_each_matters(energy):
    seen = []
    energy.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    energy(images(side=64))
    assert [tuple(h.shape[1:]) for h in seen[0]] == [(WIDTH, 16, 18), (WIDTH, 8, 9), (WIDTH, 4, 5), (WIDTH, 2, 3)]
    whole = energy.head(seen[0])
    for k in range(4):
        assert not torch.equal(energy.head([h.flip(0) if i == k else h for i, h in enumerate(seen[0])]), whole)


def test_small_images_are_enlarged_in_proportion(energy):
    seen = []
    energy.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    energy.network.conv_stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
    energy(images(side=16))
    energy(images(side=40))
    assert seen == [(32, 48), (40, 48)]


def test_of_the_network_nothing_is_saved(energy, tmp_path):
    e = energy(images(), LEVELS)
    save_energy(energy, {"name": "projected", "width": WIDTH, "size": 32}, 4, tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names and {name.split(".")[0] for name in names} == {"head", "mixes"}
    assert torch.equal(load_energy(tmp_path)(images(), LEVELS), e)
    assert torch.equal(copy.deepcopy(energy)(images(), LEVELS), e)
    with pytest.raises(RuntimeError, match="Missing key.*mixes"):
        energy.load_state_dict({name: v for name, v in energy.state_dict().items() if name.startswith("head")})


@pytest.mark.parametrize("shape", [(1, 16, 16), (4, 8, 8), (16, 16)])
def test_what_is_no_colour_image_is_refused(energy, shape):
    with pytest.raises(ConfigError, match="are no colour images"):
        energy(torch.zeros(2, *shape))


@pytest.mark.parametrize("key", ["width", "size"])
def test_impossible_options_are_refused(key):
    with pytest.raises(ConfigError, match=f"^{key}: 0 is not positive"):
        build_plugin(Energy, {"name": "projected", key: 0})


def test_a_missing_package_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="^name: .*needs the package no-such-package"):
        build_plugin(Energy, {"name": "projected"})
