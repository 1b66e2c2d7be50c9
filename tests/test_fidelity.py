"""Fréchet distance, precision and recall against their definitions; the classifier behind them."""

import json
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from dxmi_plugins.evaluators.classifier import Classifier
from dxmi_plugins.evaluators.fidelity import Fidelity, Pixels
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Subset

from dxmi.api import ConfigError
from dxmi.data import Data, Images, load_images

EXAMPLES = Path(__file__).parents[1] / "examples"
DIGITS, EXTRACTOR = EXAMPLES / "data" / "digits.parquet", str(EXAMPLES / "extractors" / "digits.safetensors")


@pytest.fixture(autouse=True)
def own_torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        return load_images(Data(path=str(DIGITS)))


@pytest.fixture(scope="module")
def labels():
    return torch.tensor(pyarrow.parquet.read_table(DIGITS, columns=["label"])["label"].to_pylist())


@pytest.fixture
def reference(digits):
    return Images(digits.pixels[:300], "reference")


@pytest.fixture
def samples(digits):
    return digits[300:600]


def evaluate(samples, reference, *metrics, **options):
    evaluator = Fidelity(**{"extractor": EXTRACTOR, "metrics": list(metrics) or ["fid", "prc"]} | options)
    return evaluator(lambda n: samples[:n], reference)


@torch.no_grad()
def features(images, extractor=EXTRACTOR):
    """float64 features of images in [-1, 1]."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Classifier.load(Path(extractor))(pixels)[0].double().numpy()


def frechet(a, b):
    """``|mu - nu|^2 + tr(A + B - 2 (A B)^(1/2))``; the root's trace is that of (A^(1/2) B A^(1/2))^(1/2)."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross


def covered(points, support, k=3):
    """The share of points within the distance of some support point to its k-th nearest neighbour."""

    def distances(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    radii = np.sort(distances(support, support), axis=1)[:, k]  # column 0 is the point itself
    return (distances(points, support) <= radii).any(1).mean()


# Numbers


def test_identical_samples_are_perfect(reference):
    found = evaluate(reference[:], reference)
    assert abs(found["fd_digits"]) < 1e-3
    assert found["precision"] == found["recall"] == 1


def test_frechet_distance_equals_its_formula(reference, samples):
    noisy = samples + 0.5 * torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))
    for drawn in (samples, noisy):
        expected = frechet(features(drawn), features(reference[:]))
        assert evaluate(drawn, reference)["fd_digits"] == pytest.approx(expected, rel=1e-6)


def test_precision_and_recall_equal_brute_force(reference, samples):
    blurred = 0.6 * samples + 0.4 * samples.roll(1, 0)
    for drawn in (samples, blurred):
        real, fake = features(reference[:]), features(drawn)
        found = evaluate(drawn, reference, "prc")
        assert 0.05 < covered(fake, real) < 0.99
        assert found["precision"] == pytest.approx(covered(fake, real), abs=1e-7)
        assert found["recall"] == pytest.approx(covered(real, fake), abs=1e-7)


def test_missing_digits_cost_recall_and_not_precision(digits, labels):
    few = digits[300:][labels[300:] < 4][:300]
    reference = Images(digits.pixels[:300], "reference")
    found, full = evaluate(few, reference), evaluate(digits[300:600], reference)
    assert full["recall"] > 0.7 and found["recall"] < 0.5
    assert found["precision"] > 0.7
    assert found["fd_digits"] > 2 * full["fd_digits"]


def test_noise_has_no_precision(reference):
    noise = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert evaluate(noise, reference)["precision"] < 0.1


def test_values_beyond_the_range_are_clamped(reference, samples):
    beyond = torch.where(samples.abs() == 1, 3 * samples, samples)
    assert evaluate(beyond, reference) == evaluate(samples, reference)


def test_a_grey_image_of_one_value_is_that_value():
    values = torch.arange(256, dtype=torch.uint8)
    images = Images(values.reshape(-1, 1, 1, 1), "values")
    assert torch.equal(torch.stack([p.flatten()[0] for p in Pixels(images, colour=False)]), values)


# What is measured


def test_the_distance_is_named_after_the_extractor(reference, samples):
    assert set(evaluate(samples, reference)) == {"fd_digits", "precision", "recall", "f_score"}


def test_all_metrics_come_by_default(reference, samples):
    found = Fidelity(extractor=EXTRACTOR)(lambda n: samples[:n], reference)
    assert {"fd_digits", "kd_digits_mean", "is_digits_mean", "precision", "recall"} <= set(found) and "fid" not in found
    assert all(np.isfinite(list(found.values())))
    assert 1 <= found["is_digits_mean"] <= 10  # between one and the number of classes


@pytest.mark.parametrize("samples, expected", [(None, 300), (120, 120)])
def test_as_many_samples_as_the_reference_unless_told(reference, samples, expected):
    asked = []
    evaluator = Fidelity(extractor=EXTRACTOR, metrics=["prc"], samples=samples)
    evaluator(lambda n: asked.append(n) or reference[:n], reference)
    assert asked == [expected]


def test_batch_size_changes_nothing(reference, samples):
    small, large = (evaluate(samples, reference, batch_size=b, cache=False) for b in (37, 300))
    assert small == pytest.approx(large, rel=1e-5)


def test_a_colour_extractor_repeats_grey(tmp_path, reference, samples):
    """One that averages the channels sees what the grey one sees."""
    grey = Classifier.load(Path(EXTRACTOR))
    weights = grey.state_dict()
    weights["body.0.0.weight"] = weights["body.0.0.weight"].repeat(1, 3, 1, 1) / 3
    colour = Classifier(**grey.options | {"channels": 3})
    colour.load_state_dict(weights)
    colour.save(tmp_path / "colour.safetensors")
    found = evaluate(samples, reference, "fid", extractor=str(tmp_path / "colour.safetensors"))
    assert found == {"fd_colour": pytest.approx(evaluate(samples, reference)["fd_digits"], rel=1e-4)}


# The cache of the reference


def test_cached_and_fresh_agree(reference, samples, tmp_path):
    fresh = evaluate(samples, reference, cache=False)
    assert not (tmp_path / "torch").exists()
    first, second = evaluate(samples, reference), evaluate(samples, reference)
    assert first == second == fresh
    files = [f.name for f in (tmp_path / "torch").rglob("*.pt")]
    assert files and all(reference.fingerprint in name for name in files)


def test_one_changed_image_is_no_stale_cache(reference, samples):
    before = evaluate(samples, reference)
    pixels = reference.pixels.clone()
    pixels[7] = 255 - pixels[7]
    changed = Images(pixels, reference.name)
    after = evaluate(samples, changed)
    assert after["fd_digits"] != before["fd_digits"]
    assert after == evaluate(samples, changed, cache=False)


@torch.no_grad()
def test_another_extractor_of_the_same_name_is_no_stale_cache(reference, samples, tmp_path):
    """Features twice as large are four times as far apart."""
    before = evaluate(samples, reference)["fd_digits"]
    double = Classifier.load(Path(EXTRACTOR))
    double.hidden.weight *= 2
    double.hidden.bias *= 2
    double.save(tmp_path / "digits.safetensors")
    after = evaluate(samples, reference, extractor=str(tmp_path / "digits.safetensors"))["fd_digits"]
    assert after == pytest.approx(4 * before, rel=1e-4)


def test_a_reference_without_fingerprint_is_not_cached(digits, samples, tmp_path):
    subset = Subset(digits, list(range(300)))
    assert evaluate(samples, subset) == evaluate(samples, Images(digits.pixels[:300], "r"), cache=False)
    assert not (tmp_path / "torch").exists()


# The stamp


def test_the_stamp_is_json_with_the_hash_of_the_extractor():
    stamp = Fidelity(extractor=EXTRACTOR).stamp()
    assert json.loads(json.dumps(stamp)) == stamp
    assert stamp["weights_sha256"] == sha256(Path(EXTRACTOR).read_bytes()).hexdigest()
    assert stamp["extractor"] == "digits" and "torch-fidelity" in stamp["implementation"]


# Bad input


@pytest.mark.parametrize(
    "options, named",
    [
        ({"metrics": ["fid", "ssim"]}, "metrics.*ssim"),
        ({"metrics": []}, "metrics"),
        ({"samples": 1}, "samples.*1"),
        ({"extractor": "vgg16"}, "extractor.*vgg16"),
        ({"extractor": "missing.safetensors"}, "extractor.*missing.safetensors"),
        ({"extractor": "inception-v3-compat", "weights": "missing.pth"}, "weights.*missing.pth"),
    ],
)
def test_impossible_options_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        Fidelity(**{"extractor": EXTRACTOR} | options)


@pytest.mark.parametrize("channels, name", [(3, "digits"), (2, "digits")])
def test_other_channels_are_refused(channels, name):
    images = Images(torch.zeros(4, channels, 8, 8, dtype=torch.uint8), "colour")
    with pytest.raises(ConfigError, match=f"{name} reads 1 channels, the images have {channels}"):
        evaluate(images[:], images)


# The classifier


@torch.no_grad()
def test_classifier_survives_saving(tmp_path):
    torch.manual_seed(0)
    before = Classifier(channels=3, classes=5, width=4, features=6)
    pixels = torch.randint(256, (9, 3, 12, 10), dtype=torch.uint8)
    before.train()(pixels)  # moves the batch statistics
    before.eval().save(tmp_path / "c.safetensors")
    after = Classifier.load(tmp_path / "c.safetensors")
    assert after.options == before.options and not after.training
    assert [tuple(o.shape) for o in after(pixels)] == [(9, 6), (9, 5)]
    assert all(torch.equal(a, b) for a, b in zip(after(pixels), before(pixels), strict=True))


@torch.no_grad()
def test_the_example_classifier_reads_digits(digits, labels):
    found = Classifier.load(Path(EXTRACTOR))(digits.pixels)[1].argmax(1)
    assert (found == labels).float()[::10].mean() > 0.95  # the images it was not trained on


def not_a_classifier(path, kind):
    if kind == "text":
        path.write_text("no weights")
    elif kind == "other network":
        save_file(nn.Linear(2, 2).state_dict(), path, metadata={"format": "pt"})
    elif kind == "no header":
        save_file(Classifier(1, 2).state_dict(), path)
    else:
        metadata = {k: str(v) for k, v in Classifier(1, 3).options.items()}
        save_file(Classifier(1, 2).state_dict(), path, metadata=metadata)
    return path


@pytest.mark.parametrize("kind", ["text", "other network", "no header", "other sizes"])
def test_other_files_are_no_classifier(tmp_path, kind):
    with pytest.raises(ConfigError, match="extractor.*wrong.safetensors is no classifier"):
        Classifier.load(not_a_classifier(tmp_path / "wrong.safetensors", kind))


# Inception


@pytest.mark.skipif("DXMI_INCEPTION" not in os.environ, reason="DXMI_INCEPTION names no file with Inception's weights")
def test_inception(digits):
    reference = Images(digits.pixels[:40], "reference")
    evaluator = Fidelity(weights=os.environ["DXMI_INCEPTION"], metrics=["fid", "prc"])
    same, other = evaluator(lambda n: reference[:n], reference), evaluator(lambda n: digits[40 : 40 + n], reference)
    assert set(same) == {"fid", "precision", "recall", "f_score"}
    assert abs(same["fid"]) < 1e-2 < other["fid"]
    assert same["precision"] == same["recall"] == 1
    assert evaluator.stamp()["weights_sha256"] == sha256(Path(os.environ["DXMI_INCEPTION"]).read_bytes()).hexdigest()
