"""Floors, class shares put right and nearest images, against closed forms and brute force."""

import numpy as np
import pytest
import torch
from conftest import EXTRACTOR
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.fidelity.classes import class_figures, floors
from dxmi_plugins.evaluators.fidelity.evaluator import Fidelity
from dxmi_plugins.evaluators.fidelity.frechet import FrechetDistance, Moments, weighted
from dxmi_plugins.evaluators.fidelity.nearest import nearest
from dxmi_plugins.evaluators.fidelity.resampled import KeptResamples, Resampled
from torch import Generator

from dxmi.api import ConfigError, HeldSamples
from dxmi.data import Images

pytestmark = pytest.mark.usefixtures("own_torch_home")

ALONE = HeldSamples(lambda n: torch.zeros(n))
"""stands for a single process"""


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(x):
    found = Moments(x.shape[1])
    found.update(x)
    return found.gaussian()


def evaluate(images, reference, *metrics, **options):
    evaluator = Fidelity(**{"extractor": str(EXTRACTOR), "metrics": list(metrics) or None} | options)
    return evaluator(lambda n: images[:n], reference)


# Moments of rows that do not all count alike


def test_equal_weights_give_plain_moments():
    x = rows(50, 4) + 3
    found, plain = weighted(x, torch.full((50,), 7.0)), moments_of(x)
    assert torch.allclose(found.mean, plain.mean) and torch.allclose(found.covariance, plain.covariance, rtol=1e-12)


def test_weighted_moments_equal_brute_force(monkeypatch):
    """NumPy's covariance of importance weights; in chunks too."""
    monkeypatch.setattr("dxmi_plugins.evaluators.fidelity.frechet.CHUNK", 7)
    x, w = rows(60, 3), torch.rand(60, generator=Generator().manual_seed(1))
    found = weighted(x.float(), w)
    expected = np.cov(x.float().double().numpy(), rowvar=False, aweights=w.double().numpy())
    assert np.allclose(found.covariance.numpy(), expected, rtol=1e-12)
    assert np.allclose(found.mean.numpy(), np.average(x.float().double().numpy(), axis=0, weights=w.double().numpy()))


def test_rows_that_come_several_times_are_those_rows():
    x, times = rows(40, 3), torch.arange(40) % 4
    one, other = Moments(3), Moments(3)
    for part, count in zip(x.split(9), times.split(9), strict=True):
        one.update(part, count)
    other.update(x[:3], torch.zeros(3, dtype=torch.long))
    assert other.count == 0
    other.update(x.repeat_interleave(times, 0))
    assert one.count == other.count == int(times.sum())
    assert torch.allclose(one.mean, other.mean) and torch.allclose(one.scatter, other.scatter, rtol=1e-12)


# Class shares


def test_shares_put_right_leave_what_is_inside_the_classes():
    """Two classes, one drawn three times as often as the data have it, each exactly as the data's: right again."""
    zeros, ones = rows(400, 2), rows(400, 2, 1) + 5
    data, drawn = torch.cat([zeros, ones]), torch.cat([zeros, zeros, zeros, ones])
    distance = FrechetDistance(moments_of(data))
    classes = torch.cat([torch.zeros(1200, dtype=torch.long), torch.ones(400, dtype=torch.long)])
    found = class_figures(drawn, classes, torch.tensor([400, 400, 0]), distance)
    assert distance(moments_of(drawn)) > 3 and found["shares_right"] < 1e-3
    assert found["class_tv"] == 0.25  # .75, .25 against .5, .5
    assert (found["class_share_min"], found["class_share_max"]) == (0.5, 1.5)


def test_a_class_that_the_data_lack_has_no_weight():
    data = rows(300, 2)
    drawn = torch.cat([data, rows(100, 2, 1) + 50])
    classes, distance = torch.cat([torch.zeros(300), torch.ones(100)]).long(), FrechetDistance(moments_of(data))
    found = class_figures(drawn, classes, torch.tensor([300, 0]), distance)
    assert found["shares_right"] == pytest.approx(0, abs=1e-9) and found["class_tv"] == 0.25
    assert "shares_right" not in class_figures(drawn[300:], classes[300:], torch.tensor([300, 0]), distance)


def test_shares_are_by_the_extractors_own_classes(digits):
    """Without sevens; the other classes are as the data have them, so that what is missing cannot be put right."""
    seen = make_extractor(str(EXTRACTOR))(digits.pixels)[1].argmax(1)
    counts = torch.bincount(seen, minlength=10).double()
    few = digits[:][seen != 7]
    with pytest.warns(UserWarning, match="^shares: class 7 of digits is in the data and in no sample, so shares"):
        found = evaluate(few, digits, "shares", samples=len(few))
    assert found["class_tv"] == pytest.approx(float(counts[7] / counts.sum()), rel=1e-12)
    assert found["class_share_min"] == 0 and found["class_share_max"] == pytest.approx(len(digits) / len(few))
    assert {"class_tv_floor", "class_share_min_floor_std", "fd_digits_shares_right_floor"} <= found.keys()
    assert "fd_digits" not in found


def test_most_of_a_digits_distance_is_class_shares(digits):
    """What MATH 3.10 says of real digits drawn again."""
    drawn = digits[torch.randint(len(digits), (1000,), generator=Generator().manual_seed(1))]
    found = evaluate(drawn, digits, "fid", "shares", samples=1000)
    assert found["fd_digits_shares_right"] < found["fd_digits"] / 2
    assert found["fd_digits"] == pytest.approx(found["fd_digits_floor"], abs=5 * found["fd_digits_floor_std"])


def test_fewer_samples_than_classes_have_no_shares(digits):
    with pytest.raises(ConfigError, match="^samples: 9 samples are fewer than the 10 classes of digits; give more"):
        evaluate(digits[:9], digits, "shares", samples=9)
    with pytest.warns(
        UserWarning, match="^shares: 9 samples are fewer than the 10 classes of digits, so they are left"
    ):
        assert "class_tv" not in evaluate(digits[:9], digits, samples=9)


# The data drawn again


@pytest.mark.parametrize("n", [500, 4000])
def test_the_floor_of_normal_features_is_known(n):
    """Of n draws from N(0, 1) in d dimensions ``d/n`` of the mean and ``d (d + 1) / 4n`` of the covariance."""
    d, x = 6, rows(2000, 6)
    kept = KeptResamples(d, len(x), Resampled(n, 60))
    for part in torch.arange(len(x)).split(300):
        kept.add(x[part].float(), None, part)
    distance = FrechetDistance(moments_of(x))
    found = np.array([distance(gaussian) for gaussian in kept.reduced(ALONE)])
    assert abs(found.mean() - (d / n + d * (d + 1) / (4 * n))) < 4 * found.std(ddof=1) / 60**0.5


def test_the_floor_is_that_of_the_images_drawn_again(digits):
    """Over features that are kept, or over a pass of its own; with as many samples as are there."""
    reference, drawn = Images(digits.pixels[:300], "reference"), digits[300:500]
    found = evaluate(drawn, reference, "fid", samples=400, cache=False)  # of which 200 are there
    features = make_extractor(str(EXTRACTOR))(reference.pixels)[0].double().cpu()
    distance = FrechetDistance(moments_of(features))
    again = [distance(moments_of(features[i])) for i in Resampled(200, 5).rows(300)]
    assert found["fd_digits_floor"] == pytest.approx(np.median(again), rel=1e-6)
    assert found["fd_digits_floor_std"] == pytest.approx(np.std(again, ddof=1), rel=1e-6)
    kept = evaluate(drawn, reference, "fid", "kid", samples=400, cache=False)
    assert kept["fd_digits_floor"] == pytest.approx(found["fd_digits_floor"], rel=1e-6)


def test_a_floor_reads_the_images_that_are_drawn_alone(digits, monkeypatch):
    reference, samples, read = Images(digits.pixels[:300], "reference"), digits[300:], []
    evaluate(samples, reference, "fid", samples=100)
    item = Images.__getitem__
    monkeypatch.setattr(Images, "__getitem__", lambda self, i: read.append(i) or item(self, i))
    evaluate(samples, reference, "fid", samples=20)
    drawn = torch.cat(Resampled(20, 5).rows(300)).unique()
    assert set(read) == {0, *drawn.tolist()}
    read.clear()
    evaluate(samples, reference, "fid", samples=20)  # out of the cache
    assert set(read) <= {0}


def test_without_draws_there_is_no_floor(digits):
    found = evaluate(digits[:100], digits, "fid", "shares", samples=100, floor_draws=0)
    assert not [name for name in found if "floor" in name]
    one = evaluate(digits[:100], digits, "fid", samples=100, floor_draws=1)
    assert one["fd_digits_floor"] > 0 and one["fd_digits_floor_std"] == 0


def test_floors_are_medians_and_spreads():
    assert floors([{"a": 1.0}, {"a": 4.0}, {"a": 2.5}]) == {"a_floor": 2.5, "a_floor_std": 1.5}


# Nearest images


def test_nearest_distances_equal_brute_force(monkeypatch):
    monkeypatch.setattr("dxmi_plugins.evaluators.fidelity.nearest.ROWS", 13)
    pixels = torch.randint(256, (70, 1, 4, 4), dtype=torch.uint8, generator=Generator().manual_seed(0)).flatten(1)
    points, images = pixels[:20].double() / 127.5, pixels[20:].double() / 127.5
    expected = torch.cdist(points, images).amin(1)
    assert torch.allclose(nearest(pixels[:20], pixels[20:]), expected, rtol=1e-12)
    among = torch.cdist(images, images).fill_diagonal_(torch.inf).amin(1)
    assert torch.allclose(nearest(pixels[20:], pixels[20:], torch.arange(50)), among, rtol=1e-12)


def test_copies_are_no_distance_away_and_the_data_are(digits):
    reference = Images(digits.pixels[:200], "reference")
    copies = evaluate(reference[:], reference, "nearest")
    flat = reference[:].flatten(1).double()
    among = torch.cdist(flat, flat).fill_diagonal_(torch.inf).amin(1).median()
    assert copies == {"nearest_median": 0, "nearest_data_median": pytest.approx(float(among), rel=1e-6)}
    others = evaluate(digits[200:400], reference, "nearest")  # the data's own comes out of the cache
    assert others["nearest_median"] > 1 and others["nearest_data_median"] == copies["nearest_data_median"]


def test_grey_samples_are_near_to_colour_images(digits):
    colour = Images(digits.pixels[:50].repeat(1, 3, 1, 1), "colour")
    found = Fidelity(extractor=str(EXTRACTOR), metrics=["nearest"])(lambda n: digits[:n], colour)
    assert found["nearest_median"] == 0
