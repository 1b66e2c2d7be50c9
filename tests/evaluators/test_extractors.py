"""Extractors: torch-fidelity's networks, backbones of transformers, their files and what is refused."""

import json
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import EXTRACTOR
from dxmi_plugins.evaluators.extractors.base import as_pixels
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.extractors.torch_fidelity import VGG16, Inception
from dxmi_plugins.evaluators.fidelity.evaluator import Fidelity
from dxmi_plugins.evaluators.fidelity.figures import Wanted
from dxmi_plugins.evaluators.fidelity.reference import Reference
from dxmi_plugins.evaluators.fidelity.statistics_files import cache_folder, place
from torch import Generator, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from transformers import AutoImageProcessor, BitImageProcessor, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from dxmi.api import ConfigError
from dxmi.api.fingerprint import file_sha256
from dxmi.data import Images

pytestmark = pytest.mark.usefixtures("own_torch_home")


def pixels(n, channels=3, side=20, seed=0):
    generator = Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, side, side), dtype=torch.uint8, generator=generator)


def save_processor(folder, **more):
    size, half = {"height": 16, "width": 16}, [0.5] * 3
    options = {"size": {"shortest_edge": 16}, "crop_size": size, "image_mean": half, "image_std": half}
    BitImageProcessor(**options | more).save_pretrained(folder)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones") / "tiny-dinov2"
    torch.manual_seed(0)
    options = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    Dinov2Model(Dinov2Config(**options)).save_pretrained(folder)
    save_processor(folder)
    return folder


# Backbones of transformers


@torch.no_grad()
def test_a_backbone_is_what_transformers_computes(dinov2):
    extractor = make_extractor(str(dinov2))
    features, logits = extractor(pixels(5))
    inputs = AutoImageProcessor.from_pretrained(dinov2)(images=list(pixels(5)), return_tensors="pt")
    expected = Dinov2Model.from_pretrained(dinov2).eval()(**inputs).pooler_output
    assert torch.equal(features.cpu(), expected) and logits is None
    assert (extractor.name, extractor.dimension, extractor.channels) == ("tiny-dinov2", 24, 3)


def test_a_backbone_says_its_resize_rule_and_the_hash_of_its_weights(dinov2, tmp_path):
    extractor = make_extractor(str(dinov2))
    told = ["BitImageProcessor", "'shortest_edge': 16", "do_normalize True", "do_rescale True"]
    assert all(setting in extractor.resize for setting in told)
    assert extractor.sha256 == make_extractor(str(dinov2)).sha256
    other = Dinov2Model.from_pretrained(dinov2)
    with torch.no_grad():
        other.layernorm.weight[0] += 1
    other.save_pretrained(tmp_path / "other")
    save_processor(tmp_path / "other")
    assert make_extractor(str(tmp_path / "other")).sha256 != extractor.sha256


@pytest.mark.parametrize("setting", [{"do_normalize": False}, {"do_rescale": False}, {"do_convert_rgb": False}])
def test_another_processor_setting_is_another_cache(dinov2, tmp_path, setting):
    """Of the same name, weights and data; the last setting changes nothing of these images and counts all the same."""
    folder = tmp_path / "tiny-dinov2"
    Dinov2Model.from_pretrained(dinov2).save_pretrained(folder)
    save_processor(folder, **setting)
    one, other = make_extractor(str(dinov2)), make_extractor(str(folder))
    assert one.sha256 == other.sha256 and one.name == other.name
    reference, samples = (Images(pixels(30, seed=s), "noise") for s in (0, 1))
    for extractor, files in ((dinov2, 1), (folder, 2), (dinov2, 2)):
        Fidelity(extractor=str(extractor), metrics=["fid"], floor_draws=0)(lambda n: samples[:n], reference)
        assert len([*cache_folder().glob("*")]) == files


def test_another_version_of_the_library_is_another_cache(dinov2):
    reference, one, other = Reference(Images(pixels(2), "noise"), 2, True), *(make_extractor(str(dinov2)) for _ in "ab")
    assert reference.key(one, "moments") == reference.key(other, "moments")
    other.library = "transformers 0.0.1"
    assert place(reference.key(one, "moments")) != place(reference.key(other, "moments"))


@torch.no_grad()
def test_a_backbone_in_half_precision_runs_in_float32(dinov2, tmp_path):
    half = Dinov2Model.from_pretrained(dinov2).half()
    half.save_pretrained(tmp_path / "half")
    save_processor(tmp_path / "half")
    inputs = AutoImageProcessor.from_pretrained(dinov2)(images=list(pixels(5)), return_tensors="pt")
    features = make_extractor(str(tmp_path / "half"))(pixels(5))[0].cpu()
    assert torch.equal(
        features, half.float().eval()(**inputs).pooler_output
    )  # of rounded weights, and no more rounding


def test_a_distance_over_a_backbone(dinov2):
    """Its distance carries its name; half-dark images are further than others of the same kind."""
    reference, same = (Images(pixels(60, seed=s), "noise") for s in (0, 1))
    evaluator = Fidelity(extractor=str(dinov2), cache=False)
    found = evaluator(lambda n: same[:n], reference)
    dark = evaluator(lambda n: same[:n] / 2 - 0.5, reference)
    assert {"fd_tiny-dinov2", "kd_tiny-dinov2_mean", "precision", "recall"} <= set(found)
    assert not [key for key in found if key.startswith("is_")]  # it has no logits
    assert dark["fd_tiny-dinov2"] > 2 * found["fd_tiny-dinov2"]
    assert json.loads(json.dumps(evaluator.stamp()))["extractor"] == "tiny-dinov2"


@torch.no_grad()
def test_a_pooler_without_weights_is_not_used(tmp_path):
    """A checkpoint without one would get a random pooler; then the first token it is."""
    torch.manual_seed(0)
    options = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = ViTModel(ViTConfig(**options, image_size=16, patch_size=8), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "vit")
    save_processor(tmp_path / "vit")
    extractor = make_extractor(str(tmp_path / "vit"))
    inputs = AutoImageProcessor.from_pretrained(tmp_path / "vit")(images=list(pixels(3)), return_tensors="pt")
    assert torch.equal(extractor(pixels(3))[0].cpu(), model(**inputs).last_hidden_state[:, 0])


def test_a_backbone_without_processor_is_refused(dinov2, tmp_path):
    Dinov2Model.from_pretrained(dinov2).save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="^extractor: .*bare has no preprocessor_config.json"):
        make_extractor(str(tmp_path / "bare"))(pixels(1))


def test_a_backbone_with_missing_weights_is_refused(dinov2, tmp_path):
    options = {"hidden_size": 24, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    Dinov2Model(Dinov2Config(**options, num_hidden_layers=1)).save_pretrained(tmp_path / "short")
    (tmp_path / "short" / "config.json").write_text((dinov2 / "config.json").read_text())
    save_processor(tmp_path / "short")
    with pytest.raises(ConfigError, match="^extractor: .*short has no weights for .*layer.1"):
        make_extractor(str(tmp_path / "short"))(pixels(1))


def test_other_folders_and_hub_ids_out_of_reach_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=f"^extractor: {tmp_path} is no image backbone that transformers can load$"):
        make_extractor(str(tmp_path))(pixels(1))
    with pytest.raises(ConfigError, match="^extractor: there is no folder nobody/nothing, and the hub has it not"):
        make_extractor("nobody/nothing")(pixels(1))


# Networks of torch-fidelity


def offline(*args, **options):
    raise URLError("no route")


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Weights of no use but of the right shapes."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        module = "torch_fidelity.feature_extractor_inceptionv3"
        patch.setattr(f"{module}.load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        torch.save(FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict(), path)
    return path


def test_inception_is_torch_fidelitys(inception_file):
    extractor = make_extractor("inception-v3-compat", str(inception_file))
    layers = ["2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("own", layers, feature_extractor_weights_path=str(inception_file))(pixels(2))
    ours = extractor(pixels(2))
    assert all(torch.allclose(a.cpu(), b, rtol=1e-4) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].shape == (2, extractor.dimension) and ours[1].shape == (2, extractor.logits)
    assert extractor.sha256 == file_sha256(inception_file)


def test_other_weights_than_those_of_2015_give_no_fid(inception_file, monkeypatch):
    found = file_sha256(inception_file)
    extractor = make_extractor("inception-v3-compat", str(inception_file))
    assert Wanted(["fid"], extractor, extractor, False, 0).key("fid", "fd") == f"fd_inception_{found[:8]}"
    monkeypatch.setattr(Inception, "url", f"https://host/weights-inception-{found[:8]}.pth")
    assert make_extractor("inception-v3-compat", str(inception_file)).name == "inception"


def test_loading_leaves_the_noise_alone(inception_file):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert make_extractor("inception-v3-compat", str(inception_file)).network is not None
    assert torch.equal(torch.get_rng_state(), before)


class TinyVGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, stride=32)
        self.classifier = nn.Sequential(*[nn.Linear(4, 4) for _ in range(7)])

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def test_vgg16_is_torch_fidelitys(tmp_path, monkeypatch):
    """On a network of VGG's outline: the real one is half a gigabyte."""
    monkeypatch.setattr("torchvision.models.vgg16", TinyVGG)
    path = str(tmp_path / "vgg.pth")
    torch.save(TinyVGG().state_dict(), path)
    theirs = FeatureExtractorVGG16("own", ["fc2_relu"], feature_extractor_weights_path=path)(pixels(3))[0]
    features, logits = make_extractor("vgg16", path)(pixels(3))
    assert torch.allclose(features.cpu(), theirs, rtol=1e-4) and logits is None


def test_precision_and_recall_over_their_own_extractor(dinov2):
    """The distance stays that of the main extractor, precision and recall become the other's."""
    reference, samples = (Images(pixels(40, channels=1, side=16, seed=s), "noise") for s in (0, 1))
    both = Fidelity(extractor=str(EXTRACTOR), metrics=["fid", "prc"], prc_extractor=str(dinov2), cache=False)
    with pytest.warns(UserWarning, match="tiny-dinov2 reads colour; grey images are shown to it as such"):
        found = both(lambda n: samples[:n], reference)
    one, other = (
        Fidelity(extractor=str(e), metrics=["fid", "prc"], cache=False)(lambda n: samples[:n], reference)
        for e in (EXTRACTOR, dinov2)
    )
    assert found["fd_digits"] == pytest.approx(one["fd_digits"], rel=1e-12)
    assert (found["precision"], found["recall"]) == (other["precision"], other["recall"])
    assert both.stamp()["precision_recall_extractor"]["name"] == "tiny-dinov2"


@pytest.mark.parametrize(
    ("kind", "file"), [(Inception, "weights-inception-2015-12-05-6726825d.pth"), (VGG16, "vgg16-397923af.pth")]
)
def test_missing_weights_offline_name_file_and_option(tmp_path, monkeypatch, kind, file):
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ConfigError) as caught:
        kind(None, "prc_weights")(pixels(1))
    place = tmp_path / "torch" / "hub" / "checkpoints" / file
    assert str(caught.value).startswith(f"prc_weights: {place} is missing") and file in str(caught.value).split(";")[1]


def no_draw(n):
    raise AssertionError("a sample was drawn")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "weights"),
        ({"metrics": ["isc"]}, "weights"),
        ({"extractor": str(EXTRACTOR), "prc_extractor": "inception-v3-compat"}, "prc_weights"),
    ],
)
def test_missing_weights_are_found_before_a_sample_is_drawn(options, key, monkeypatch):
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ConfigError, match=f"^{key}: .* is missing"):
        Fidelity(**options, cache=False)(no_draw, Images(pixels(70, 1, 8), "noise"))


def test_a_missing_processor_is_found_before_a_sample_is_drawn(dinov2, tmp_path):
    Dinov2Model.from_pretrained(dinov2).save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="^extractor: .*bare has no preprocessor_config.json"):
        Fidelity(extractor=str(tmp_path / "bare"), metrics=["fid"])(no_draw, Images(pixels(70), "noise"))


def test_statistics_know_weights_that_were_just_fetched(inception_file, tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", mu=np.zeros(2048), sigma=np.eye(2048), extractor=file_sha256(inception_file))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda url, to, **_: Path(to).symlink_to(inception_file))
    evaluator = Fidelity(metrics=["fid"], samples=2, reference_statistics=str(tmp_path / "own.npz"))
    assert evaluator.stamp()["weights_sha256"] == file_sha256(inception_file)


def test_weights_are_found_where_torch_hub_keeps_them(inception_file):
    extractor = Inception(None)
    assert extractor.sha256 is None
    extractor.path.parent.mkdir(parents=True)
    extractor.path.symlink_to(inception_file)
    assert extractor(pixels(1))[0].shape == (1, 2048) and extractor.sha256 == file_sha256(inception_file)


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("content", ["text", "other network", "code"])
def test_other_files_are_no_weights(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if content == "text":
        path.write_text("no weights")
    else:
        torch.save(nn.Linear(2, 2).state_dict() if content == "other network" else Code(), path)
    with pytest.raises(ConfigError, match=r"^weights: .*w\.pth holds no weights of inception"):
        make_extractor("inception-v3-compat", str(path))(pixels(1))
    assert not (tmp_path / "ran").exists()


# Pixels


def test_pixels_are_clamped_rounded_and_repeated_for_colour():
    images = torch.tensor([-2.0, -1.0, 0.0, 0.999, 7.0]).reshape(5, 1, 1, 1)
    assert as_pixels(images, make_extractor(str(EXTRACTOR))).flatten().tolist() == [0, 0, 128, 255, 255]
    assert as_pixels(images, Inception(None)).shape == (5, 3, 1, 1)
