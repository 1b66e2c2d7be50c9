"""Anomaly detection: AUROC with ties, aggregators, the autoencoder on the sphere, the synthetic stand-in."""

import importlib
import json
import math
import re

import pytest
import torch
from conftest import ROOT
from dxmi_plugins.energies.sphere_autoencoder import SphereAutoencoder
from dxmi_plugins.evaluators.anomaly.auroc import auroc, auroc_table, mean_row, upsampled
from dxmi_plugins.evaluators.anomaly.evaluator import Anomaly
from torch.nn.functional import normalize

from dxmi.api import ConfigError, Labelled
from dxmi.evaluation import measure
from dxmi.runs import load_energy, save_energy

LABELS = torch.tensor([0, 0, 1, 1])
MASKS = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None, None] * torch.eye(2)


@pytest.fixture
def examples(monkeypatch):
    """Imports a script of examples/."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


def counted(labels, scores):
    """AUROC by its meaning: the share of ordered pairs, ties half."""
    pairs = scores[labels == 1][:, None] - scores[labels == 0]
    return ((pairs > 0).double() + (pairs == 0) / 2).mean().item()


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_auroc_counts_pairs_and_half_of_the_ties(values):
    generator = torch.Generator().manual_seed(values)
    labels = torch.randint(2, (300,), generator=generator)
    scores = torch.randint(values, (300,), generator=generator).float() / 7
    assert auroc(labels, scores) == pytest.approx(counted(labels, scores), abs=1e-9)
    assert auroc(labels, -scores) == pytest.approx(1 - counted(labels, scores), abs=1e-9)  # never turned round


def test_maps_are_upsampled_by_either_rule():
    ramp = torch.tensor([[[0.0, 3.0], [0.0, 3.0]]])
    assert upsampled(ramp, (4, 4), align_corners=True)[0, 0].tolist() == pytest.approx([0, 1, 2, 3])
    assert upsampled(ramp, (4, 4), align_corners=False)[0, 0].tolist() == pytest.approx([0, 0.75, 2.25, 3])


def test_aggregators_rank_images_as_their_names_say():
    """A good image with one high cell against a defect of four middling ones."""
    peak, broad = torch.zeros(4, 4), torch.zeros(4, 4)
    peak[0, 0], broad[1:3, 1:3] = 10, 4
    maps = torch.stack([peak, peak, broad, broad])
    masks = LABELS[:, None, None] * (broad > 0)
    found = auroc_table(maps, LABELS, masks=masks, window=2)["all"]
    # max 10 > 4, mean 10/16 < 1; the largest window mean is 10/4 < 4
    assert {k: v for k, v in found.items() if k != "loc"} == {"det_max": 0.0, "det_mean": 1.0, "det_pool": 1.0}
    # 8 defective pixels of 4; of 56 others 2 are above and none is equal
    assert found["loc"] == pytest.approx(54 / 56)


def test_classes_are_ranked_apart():
    """Scores that put each class in order but not both together, and a class in reverse."""
    scores = torch.tensor([0.0, 1.0, 10.0, 11.0])
    labels = torch.tensor([0, 1, 0, 1])
    assert auroc_table(scores, labels) == {"all": {"det": 0.75}}
    table = auroc_table(scores, labels, ["cup", "cup", "nut", "nut"])
    assert table == {"cup": {"det": 1.0}, "nut": {"det": 1.0}} and mean_row(table) == {"det": 1.0}
    table = auroc_table(scores * torch.tensor([1, 1, -1, -1]), labels, ["cup", "cup", "nut", "nut"])
    assert table["nut"] == {"det": 0.0} and mean_row(table) == {"det": 0.5}


def test_the_evaluator_scores_labelled_maps():
    test = Labelled(torch.zeros(4, 3), LABELS, ["cup"] * 4, MASKS)
    found = measure([Anomaly(["max"])], test, lambda n: MASKS[:n])["metrics"]
    assert found == {"det_max": 1.0, "loc": 1.0, "det_max/cup": 1.0, "loc/cup": 1.0}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"labels": None}, "labels: AUROC needs one for each image, 0 for good and 1 for defect; these data have none"),
        ({"labels": torch.zeros(4)}, "labels: all are good; AUROC needs both kinds"),
        ({"labels": torch.ones(4), "classes": ["cup"] * 4}, "labels: all are defective in class 'cup'"),
        ({"labels": 2 * LABELS}, "labels: they are 0 for good and 1 for defect"),
        ({"labels": LABELS[:3]}, "labels: there are 3 for 4 images"),
        ({"classes": ["cup"]}, "classes: there are 1 for 4 images"),
        ({"classes": ["cup", "nut", "nut", "nut"]}, "labels: all are good in class 'cup'"),
        ({"masks": MASKS[:2]}, "masks: there are 2 for 4 images"),
        ({"masks": 0 * MASKS}, "masks: those of class 'all' have pixels of one kind alone"),
        ({"masks": 255 * MASKS}, "masks: they are 0 for good and 1 for defect"),
        ({"aggregators": ["pool"]}, "aggregators: pool needs masks of at least 16 x 16 pixels, and they are (2, 2)"),
        ({"aggregators": ["pool"], "masks": None}, "aggregators: pool needs masks of at least 16 x 16 pixels, and"),
        ({"scores": torch.rand(4), "aggregators": ["max"]}, "aggregators: each image has a single score"),
        ({"scores": torch.rand(4, 2)}, "scores: they are (4, 2); give maps (N,h,w) or one number an image (N,)"),
    ],
)
def test_what_cannot_be_ranked_is_refused(given, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        auroc_table(**{"scores": MASKS, "labels": LABELS, "masks": MASKS, **given})


def test_scores_that_are_not_finite_are_refused():
    scores = MASKS.clone()
    scores[2, 0, 1] = math.nan
    with pytest.raises(FloatingPointError, match="the scores of image 2 are not all finite"):
        auroc_table(scores, LABELS)


def test_masks_of_another_size_than_the_images_are_refused():
    with pytest.raises(ConfigError, match=re.escape("masks: they are (2, 2), the images (4, 4) (H,W)")):
        Labelled(torch.zeros(4, 3), LABELS, masks=MASKS, size=(4, 4))


def test_data_without_labels_are_refused():
    with pytest.raises(ConfigError, match="evaluators: anomaly needs labels, .* --labels COLUMN.* Labelled reference"):
        Anomaly()(lambda n: torch.zeros(n), torch.utils.data.TensorDataset(torch.zeros(3)))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Anomaly(["least"]), "aggregators: least is not one of max, mean, pool"),
        (lambda: Anomaly([]), "aggregators: the list is empty; give some of max"),
        (lambda: Anomaly(window=0), "window: 0 is not positive"),
        (lambda: SphereAutoencoder([]), "widths: [] are not one or more positive"),
        (lambda: SphereAutoencoder([8, 0]), "widths: [8, 0] are not one or more positive"),
        (lambda: SphereAutoencoder([8], latent=1), "latent: a sphere needs 2 or more units, not 1"),
        (lambda: SphereAutoencoder([8], tau=0.0), "tau: 0.0 is not positive"),
    ],
)
def test_impossible_options_are_refused(build, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        build()


def small(dim=5, **options):
    """An autoencoder that knows its size, and unit vectors."""
    torch.manual_seed(0)
    energy, x = SphereAutoencoder([16, 12], 4, **options), normalize(torch.randn(50, dim))
    energy(x)
    return energy, x


def test_latent_and_output_lie_on_spheres():
    energy, x = small()
    given_back = energy.reconstruct(x)
    torch.testing.assert_close(given_back.norm(dim=1), torch.ones(50))
    for part in (energy.encoder[-1], energy.output):  # lengths before the projections are lost
        for p in part.parameters():
            p.data.mul_(3)
    torch.testing.assert_close(energy.reconstruct(x), given_back)


def test_the_energy_is_the_scaled_error():
    """An autoencoder that always answers v: 0 at v, 4 a^2/tau opposite, 2 a^2/tau at a right angle."""
    energy, _ = small(dim=3, tau=0.5)
    v = torch.tensor([0.6, 0.8, 0.0])
    with torch.no_grad():
        energy.a.fill_(3.0)
        energy.output.weight.zero_()
        energy.output.bias.copy_(7 * v)
    e = energy(torch.stack([v, -v, torch.tensor([0.0, 0.0, 1.0])]))
    assert e.tolist() == pytest.approx([0, 4 * 9 / 0.5, 2 * 9 / 0.5], abs=1e-5)


def test_energies_lie_between_nothing_and_antipodes():
    energy, x = small()
    e = energy(x)
    assert 0 < e.min() and e.max() < 4 / 0.1
    assert e.mean().item() * 0.1 == pytest.approx(energy.reconstruction_loss(x).item())


def test_a_saved_autoencoder_finds_its_sizes_again(tmp_path):
    energy, x = small()
    save_energy(energy, {"name": "sphere_autoencoder", "widths": [16, 12], "latent": 4}, 10, tmp_path)
    torch.testing.assert_close(load_energy(tmp_path)(x), energy(x))


def test_the_stand_in_tells_weak_scores_from_strong_ones(examples, tmp_path):
    """Image AUROC by the largest cell, and cell AUROC: chance is .5 within .06, the autoencoder .93 and .94 or more.

    EBM-VGS, of fewer images and in fewer rounds than in the example, makes both better (so do seeds 0 and 2).
    """
    standin, loop = examples("anomaly_standin"), examples("anomaly_loop")
    train, test = standin.standin(seed=1)
    torch.testing.assert_close(torch.cat([train, test.items]).norm(dim=-1), torch.ones(360, 14, 14))
    assert test.masks.shape == (180, 224, 224) and (test.masks.flatten(1).amax(1) == test.labels).all()
    test.masks = test.masks[:, 8::16, 8::16]  # one pixel a cell: quick
    chance = torch.rand(180, 14, 14, generator=torch.Generator().manual_seed(0))
    found = loop.figures(chance, test, aggregators=["max"])
    assert found["det_max"] == pytest.approx(0.5, abs=0.06) and found["loc"] == pytest.approx(0.5, abs=0.06)
    train, test = standin.standin(seed=1, images=60)
    test.masks = test.masks[:, 8::16, 8::16]
    options = f"--seed 1 --pretrain 400 --steps 30 --out {tmp_path / 'out'}"
    given = loop.options(None, "anomaly_standin").parse_args(options.split())
    found = loop.compare(given, train, test, aggregators=["max"])
    alone, trained = found["autoencoder"], found["EBM-VGS"]
    assert alone["det_max"] > 0.93 and alone["loc"] > 0.94
    assert trained["det_max"] > alone["det_max"] and trained["loc"] > alone["loc"]


def test_the_kept_figures_of_the_stand_in():
    """Three seeds of the whole example: EBM-VGS ranks better than the autoencoder alone, by every figure of it."""
    kept = json.loads((ROOT / "examples" / "benchmarks" / "anomaly_standin.json").read_text())
    assert [run["seed"] for run in kept["runs"]] == [0, 1, 2] and {"machine", "python", "torch"} <= kept.keys()
    for run in kept["runs"]:
        assert len(run["auroc"]) == 6 and run["auroc"]["random"]["loc"] == pytest.approx(0.5, abs=0.06)
        alone, trained = run["auroc"]["autoencoder"], run["auroc"]["EBM-VGS"]
        assert all(trained[name] > alone[name] for name in ("det_max", "det_pool", "loc"))
