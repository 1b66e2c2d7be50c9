"""Fréchet distance, precision and recall against their definitions; the classifier behind them."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow.parquet
import pytest
import torch
import torch_fidelity
from conftest import ROOT
from dxmi_plugins.evaluators.extractors.base import as_pixels
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.extractors.classifier import Classifier
from dxmi_plugins.evaluators.fidelity.evaluator import Fidelity
from dxmi_plugins.evaluators.fidelity.scores import radii
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset, Subset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from dxmi.api import ConfigError
from dxmi.data import Images

pytestmark = pytest.mark.usefixtures("own_torch_home")

EXAMPLES = ROOT / "examples"
DIGITS, EXTRACTOR = EXAMPLES / "data" / "digits.parquet", str(EXAMPLES / "extractors" / "digits.safetensors")


@pytest.fixture(scope="module")
def labels():
    return torch.tensor(pyarrow.parquet.read_table(DIGITS, columns=["label"])["label"].to_pylist())


@pytest.fixture
def reference(digits):
    return Images(digits.pixels[:300], "reference")


@pytest.fixture
def samples(digits):
    return digits[300:600]


def evaluate(images, reference, *metrics, **options):
    evaluator = Fidelity(**{"extractor": EXTRACTOR, "metrics": list(metrics) or ["fid", "prc"]} | options)
    return evaluator(lambda n: images[:n], reference)


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
        assert found["precision"] == pytest.approx(covered(fake, real), abs=1e-9)
        assert found["recall"] == pytest.approx(covered(real, fake), abs=1e-9)


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


class Pixels(Dataset):
    """What torch-fidelity reads."""

    def __init__(self, images):
        self.pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


class Registered(FeatureExtractorBase):
    """The classifier as an extractor of torch-fidelity."""

    def __init__(self, name, features_list, **options):
        super().__init__(name, features_list)
        self.classifier = Classifier.load(Path(EXTRACTOR))

    @staticmethod
    def get_provided_features_list():
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "features"

    def forward(self, pixels):
        found = dict(zip(("features", "logits"), self.classifier(pixels), strict=True))
        return tuple(found[layer] for layer in self.features_list)


def theirs(samples, reference, **options):
    """What torch-fidelity makes of the same images, by this project's names."""
    found = torch_fidelity.calculate_metrics(
        input1=Pixels(samples),
        input2=Pixels(reference[:]),
        cuda=torch.cuda.is_available(),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        batch_size=256,
        kid_subset_size=min(len(samples), len(reference)),
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        **options,
    )
    names = {"frechet_inception_distance": "fid", "kernel_inception_distance": "kid", "inception_score": "is"}
    names |= {key: key for key in ("precision", "recall", "f_score")}
    return {own + key.removeprefix(name): v for key, v in found.items() for name, own in names.items() if name in key}


def assert_equal(found, expected):
    """The two spreads of KID are of the same subsets; its mean is the same far within them."""
    same = [key for key in expected if not key.startswith("kid")]
    assert len(same) == 6
    assert {key: found[key] for key in same} == pytest.approx({key: expected[key] for key in same}, rel=1e-6)
    assert abs(found["kid_mean"] - expected["kid_mean"]) < 1e-3 * expected["kid_std"]
    assert found["kid_std"] == pytest.approx(expected["kid_std"], rel=1e-3)


def test_all_figures_equal_torch_fidelity(monkeypatch, reference, samples):
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "digits", Registered)
    blurred = (0.7 * samples + 0.3 * samples.roll(1, 0))[:280]
    expected = theirs(blurred, reference, feature_extractor="digits")
    found = evaluate(blurred, reference, "fid", "kid", "isc", "prc")
    assert 0.1 < found["recall"] < 0.99
    assert_equal(
        {key.replace("fd_", "fid_").replace("kd_", "kid_").replace("_digits", ""): v for key, v in found.items()},
        expected,
    )


def test_digits_are_what_they_were_drawn_at(digits, labels, reference):
    """Where zeros are called ones, half of the ones are right."""
    asked = torch.where(labels[300:600] == 0, 1, labels[300:600])
    found = Fidelity(extractor=EXTRACTOR, metrics=["accuracy"])(Drawn(digits[300:600], asked), reference)
    seen = Classifier.load(Path(EXTRACTOR))(digits.pixels[300:600])[1].argmax(1)
    assert found["accuracy"] == pytest.approx((seen == asked).double().mean().item(), abs=1e-12)
    assert found["accuracy/1"] == pytest.approx((seen == 1)[asked == 1].double().mean().item(), abs=1e-12)
    assert found["accuracy/1"] < 0.7 < found["accuracy/2"] and "accuracy/0" not in found


def test_values_beyond_the_range_are_clamped(reference, samples):
    beyond = torch.where(samples.abs() == 1, 3 * samples, samples)
    assert evaluate(beyond, reference) == evaluate(samples, reference)


def test_a_grey_image_of_one_value_is_that_value():
    values = torch.arange(256, dtype=torch.uint8)
    images = Images(values.reshape(-1, 1, 1, 1), "values")
    assert torch.equal(as_pixels(images[:], make_extractor(EXTRACTOR)).flatten(), values)


# Shares


class Drawn:
    """Samples of one of ``world`` processes, which are threads that meet at a barrier; a chunk of 40 for each."""

    def __init__(self, images, labels=None, rank=0, world=1, barrier=None, board=None):
        self.images, self.known, self.rank, self.world = images, labels, rank, world
        self.barrier, self.board = barrier, board

    def __call__(self, n):
        return self.images[:n]

    def rows(self, n):
        return torch.arange(n)[torch.arange(n) // 40 % self.world == self.rank]

    share = rows

    def batches(self, n):
        yield from self.images[self.rows(n)].split(40)

    def labels(self, n):
        return None if self.known is None else self.known[:n]

    def exchanged(self, x):
        if self.world == 1:
            return [x]
        self.board[self.rank] = x
        self.barrier.wait(20)
        found = list(self.board)
        self.barrier.wait(20)
        return found

    def gather(self, x):
        return torch.cat(self.exchanged(x))

    def reduce(self, x):
        return torch.stack(self.exchanged(x)).sum(0)


def in_shares(world, images, reference, labels=None, **options):
    barrier, board = Barrier(world), [None] * world

    def run(rank):
        evaluator = Fidelity(extractor=EXTRACTOR, batch_size=40, cache=False, **options)
        return evaluator(Drawn(images, labels, rank, world, barrier, board), reference)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))


def test_shares_give_what_one_pass_gives(digits, labels, reference):
    """In two threads, the same batches in other hands; features, and so KID's subsets, are in the samples' order.

    Two processes are in test_samples.py.
    """
    samples, labels = digits[300:600], labels[300:600]
    options = {"infinity": True, "bootstrap": 5, "metrics": list(Fidelity.METRICS)}
    (one,) = in_shares(1, samples, reference, labels, **options)
    first, second = in_shares(2, samples, reference, labels, **options)
    assert first == second
    assert {"fd_digits_inf", "fd_digits_low", "kd_digits_mean", "accuracy/9", "is_digits_mean"} <= set(first)
    assert {"fd_digits_floor", "fd_digits_shares_right_floor", "nearest_median", "nearest_data_median"} <= set(first)
    assert first == pytest.approx(one, rel=1e-9)  # moments to 1e-12; roots of small eigenvalues cost digits


def test_a_bad_sample_stops_all_shares(reference, samples):
    """The second alone has it."""
    samples[45] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        in_shares(2, samples, reference, metrics=["fid"])


def test_moments_alone_are_kept_for_the_distance(monkeypatch, reference, samples):
    """Neither the reference's features nor the samples': fid, isc and accuracy are flat in memory."""
    monkeypatch.setattr("dxmi_plugins.evaluators.fidelity.passes.KeptFeatures.add", None)
    evaluate(samples, reference, "fid", "isc", cache=False)
    with pytest.raises(TypeError):
        evaluate(samples, reference, "kid", cache=False)


def test_the_reference_is_prepared_once(monkeypatch, reference, samples):
    """Rows and seeds share its eigenvectors and its radii; the samples' own radii are found each time."""
    solved, sized = [], []
    monkeypatch.setattr(torch.linalg, "eigh", lambda a, own=torch.linalg.eigh: solved.append(len(a)) or own(a))
    for module in ("fidelity.reference", "fidelity.scores"):
        monkeypatch.setattr(
            f"dxmi_plugins.evaluators.{module}.radii", lambda x, own=radii, where=module: sized.append(where) or own(x)
        )
    evaluator = Fidelity(extractor=EXTRACTOR, metrics=["fid", "prc"], infinity=True, samples=280)
    rows = [evaluator(lambda n, first=first: samples[first : first + n], reference) for first in (0, 20)]
    assert solved == [64] and sized == ["fidelity.reference", "fidelity.scores", "fidelity.scores"]
    alone = evaluate(samples[20:], reference, "fid", "prc", infinity=True, samples=280, cache=False)
    assert rows[1] == alone != rows[0]


@torch.no_grad()
def test_extractors_of_the_same_name_share_nothing(tmp_path, reference, samples):
    """The other one's features are three times as large, and every second is left out."""
    other = Classifier.load(Path(EXTRACTOR))
    for tensor in (other.hidden.weight, other.hidden.bias):
        tensor *= 3 * (torch.arange(64) % 2).reshape(-1, *[1] * (tensor.ndim - 1))
    other.save(tmp_path / "digits.safetensors")
    path = str(tmp_path / "digits.safetensors")
    alone, both = (evaluate(samples, reference, *m, prc_extractor=path) for m in (["prc"], ["kid", "prc"]))
    assert (alone["precision"], alone["recall"]) == (both["precision"], both["recall"])
    assert alone == evaluate(samples, reference, "prc", extractor=path)
    assert {**alone, **evaluate(samples, reference, "kid")} == both
    assert alone != evaluate(samples, reference, "prc")


def test_a_bad_reference_is_found_before_a_sample_is_drawn(reference):
    def no_draw(n):
        raise AssertionError("a sample was drawn")

    odd = [reference[0], reference[1], reference[2][:, :6], reference[3]]
    two = Images(torch.zeros(4, 2, 8, 8, dtype=torch.uint8), "two channels")
    cases = {"reference: image 2 is": odd, "samples: prc need 4 reference": odd[:2], "extractor: digits reads 1": two}
    for named, bad in cases.items():
        with pytest.raises(ConfigError, match=f"^{named}"):
            Fidelity(extractor=EXTRACTOR, metrics=["prc"])(no_draw, bad)


# What is measured


def test_the_distance_is_named_after_the_extractor(reference, samples):
    floor = {"fd_digits_floor", "fd_digits_floor_std"}
    assert set(evaluate(samples, reference)) == {"fd_digits", "precision", "recall", "f_score"} | floor


def test_all_metrics_come_by_default(reference, samples):
    found = Fidelity(extractor=EXTRACTOR)(lambda n: samples[:n], reference)
    assert {"fd_digits", "kd_digits_mean", "is_digits_mean", "precision", "recall", "class_tv"} <= set(found)
    assert "fid" not in found and "nearest_median" not in found
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
    found = evaluate(samples, reference, "fid", extractor=str(tmp_path / "colour.safetensors"), floor_draws=0)
    assert found == {"fd_colour": pytest.approx(evaluate(samples, reference)["fd_digits"], rel=1e-4)}


# The cache of the reference


def test_cached_and_fresh_agree(reference, samples, tmp_path):
    fresh = evaluate(samples, reference, cache=False)
    assert not (tmp_path / "torch").exists()
    first, second = evaluate(samples, reference), evaluate(samples, reference)
    assert first == second == fresh
    files = sorted(f.name for f in (tmp_path / "torch").rglob("*.*"))
    assert [name.split("-")[0] for name in files] == ["features", "floor300x5", "moments"]
    assert all(name.endswith(".safetensors") for name in files)


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
    assert stamp["precision_recall_extractor"]["weights_sha256"] == stamp["weights_sha256"]
    assert {"resize", "kid", "isc", "fid", "precision_recall", "infinity", "bootstrap"} <= set(stamp)


# Bad input


@pytest.mark.parametrize(
    "options, named",
    [
        ({"metrics": ["fid", "ssim"]}, "metrics.*ssim"),
        ({"metrics": []}, "metrics"),
        ({"samples": 1}, "samples.*1"),
        ({"extractor": "resnet"}, "extractor: 'resnet' is none of"),
        ({"bootstrap": 1}, "bootstrap: 1"),
        ({"floor_draws": -1}, "floor_draws: -1 is negative; give 0 for none"),
        ({"extractor": "vgg16", "metrics": ["shares"]}, "metrics: shares needs classes, which vgg16 has not"),
        ({"metrics": ["nearest"], "reference_statistics": "x.npz"}, "metrics: nearest: published statistics are"),
        ({"prc_weights": "vgg.pth"}, "prc_weights: .*prc_extractor"),
        ({"prc_extractor": "vgg16", "prc_weights": "missing.pth"}, "prc_weights: there is no file missing.pth"),
        ({"weights": "missing.pth"}, "weights: .*has its own"),
        ({"metrics": ["kid"], "infinity": True}, "infinity: metrics do not ask for fid"),
        ({"extractor": "vgg16", "metrics": ["isc"]}, "metrics: isc needs logits, which vgg16 has not"),
        ({"extractor": "vgg16", "metrics": ["accuracy"]}, "metrics: accuracy needs a classifier"),
        ({"metrics": ["kid"], "reference_statistics": "x.npz"}, "metrics: kid: published statistics are for fid alone"),
        ({"metrics": None, "prc_extractor": "vgg16", "reference_statistics": "x.npz"}, "prc_extractor: published"),
        ({"reference_statistics": "missing.npz"}, "reference_statistics: there is no file missing.npz"),
        ({"extractor": "missing.safetensors"}, "extractor.*missing.safetensors"),
        ({"extractor": "inception-v3-compat", "weights": "missing.pth"}, "weights.*missing.pth"),
    ],
)
def test_impossible_options_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        Fidelity(**{"extractor": EXTRACTOR} | options)


def test_few_samples_are_warned_of_by_name_and_one_is_refused(digits, reference):
    with pytest.warns(
        UserWarning, match="^samples: 64 samples for the 64 features of digits: the covariance is singular"
    ):
        evaluate(digits[:64], reference, "fid", samples=64)
    with pytest.raises(ConfigError, match="^samples: fid need 2 reference images or more, there are 1"):
        evaluate(digits[:2], Images(digits.pixels[:1], "one"), "fid", samples=2)
    with pytest.raises(ConfigError, match="^samples: fid need 2 samples or more, there are 1"):
        evaluate(digits[:1], reference, "fid")
    with pytest.warns(UserWarning, match="^samples: 37 samples in a part for the 64 features of digits"):
        evaluate(digits[:300], reference, "fid", infinity=True)


def test_images_of_different_sizes_are_refused(samples):
    mixed = [samples[0], samples[1], samples[2][:, :6], samples[3]]
    with pytest.raises(ConfigError, match=r"^reference: image 2 is \(1, 6, 8\), image 0 is \(1, 8, 8\)"):
        evaluate(samples, mixed, "fid")
    with pytest.raises(ConfigError, match=r"^samples: they are \(1, 6, 8\), the reference \(1, 8, 8\)"):
        evaluate(samples[:, :, :6], [*samples[:4]], "fid")


def test_accuracy_needs_labels(reference, samples):
    with pytest.raises(ConfigError, match="^metrics: accuracy needs samples that were drawn at labels"):
        evaluate(samples, reference, "accuracy")
    with pytest.warns(UserWarning, match="^metrics: accuracy is left out"):
        assert set(evaluate(samples, reference, "fid", "accuracy", floor_draws=0)) == {"fd_digits"}
    with pytest.raises(ConfigError, match="^metrics: accuracy: digits knows labels 0..9"):
        Fidelity(extractor=EXTRACTOR, metrics=["accuracy"])(Drawn(samples, torch.full((300,), 10)), reference)
    unlabelled = Drawn(samples, torch.full((300,), -1))  # as test sets of the hub have it
    assert "accuracy" not in Fidelity(extractor=EXTRACTOR)(unlabelled, reference)


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


def frechet_of_few(a, b):
    """The distance of fewer rows than dimensions, and what an eigenvalue solver's rounding of its zeros adds up to.

    The root's trace is the sum of singular values of the sets' inner products: no eigenvalue of 0 comes in.
    """
    mean, a, b = a.mean(0) - b.mean(0), a - a.mean(0), b - b.mean(0)
    a, b = a / (len(a) - 1) ** 0.5, b / (len(b) - 1) ** 0.5
    traces = np.square(a).sum() + np.square(b).sum()
    distance = np.square(mean).sum() + traces - 2 * np.linalg.norm(a @ b.T, "nuc")
    largest = np.linalg.norm(a, 2) * np.linalg.norm(b, 2)  # the root of the product of the largest eigenvalues
    return distance, 2 * a.shape[1] * np.finfo(float).eps ** 0.5 * largest


@pytest.mark.skipif("DXMI_INCEPTION" not in os.environ, reason="DXMI_INCEPTION names no file with Inception's weights")
def test_inception(digits):
    reference = Images(digits.pixels[:60], "reference")  # more than samples, or KID's subsets were all the same
    evaluator = Fidelity(weights=os.environ["DXMI_INCEPTION"], metrics=["fid", "kid", "isc", "prc"])
    same, other = evaluator(lambda n: reference[:n], reference), evaluator(lambda n: digits[60:100], reference)
    names = {"fid", "kid_mean", "kid_std", "is_mean", "is_std", "precision", "recall", "f_score"}
    assert set(same) == names | {"fid_floor", "fid_floor_std"}
    assert abs(same["fid"]) < 1e-2 < other["fid"]
    assert same["precision"] == same["recall"] == 1
    assert evaluator.stamp()["weights_sha256"] == sha256(Path(os.environ["DXMI_INCEPTION"]).read_bytes()).hexdigest()
    colour = Images(reference.pixels.expand(-1, 3, -1, -1), "colour")
    expected = theirs(
        digits[60:100].expand(-1, 3, -1, -1),
        colour,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=os.environ["DXMI_INCEPTION"],
    )
    real, drawn = (evaluator.extractor(as_pixels(x, evaluator.extractor))[0] for x in (reference[:], digits[60:100]))
    exact, rounding = frechet_of_few(drawn.double().cpu().numpy(), real.double().cpu().numpy())
    assert other["fid"] == pytest.approx(exact, rel=1e-6)
    assert other["fid"] == pytest.approx(expected["fid"], rel=1e-6, abs=rounding)
    assert_equal(other | {"fid": expected["fid"]}, expected)
