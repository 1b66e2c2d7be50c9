"""Feature maps of a frozen EfficientNet and what is kept of them; the MVTec example on a folder made here."""

import importlib
import json
import re

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from torch.nn.functional import interpolate, normalize
from transformers import EfficientNetConfig, EfficientNetModel

from dxmi.api import ConfigError
from dxmi.data import feature_maps
from dxmi.data.feature_maps import FeatureMaps
from dxmi.runs import load_energy


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny EfficientNet with random weights, saved as transformers does."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    config = EfficientNetConfig(width_coefficient=0.2, depth_coefficient=0.4, hidden_dim=256, initializer_range=0.2)
    EfficientNetModel(config).save_pretrained(folder)
    return str(folder)


def save_noise(path, seed, size=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def files(tmp_path):
    return [save_noise(tmp_path / f"{seed}.png", seed) for seed in range(3)]


def test_cells_hold_the_last_state_of_each_of_four_strides(backbone, files):
    maps = FeatureMaps(backbone, size=32, grid=4)
    x = torch.stack([feature_maps.read_image(file, 32) for file in files])
    states = maps.network(x, output_hidden_states=True).hidden_states
    last = [[s for s in states if s.shape[-1] == side][-1] for side in (16, 8, 4, 2)]
    by_hand = torch.cat([interpolate(s, (4, 4), mode="bilinear", align_corners=True) for s in last], 1)
    found = maps.of_files(files, batch=2)
    torch.testing.assert_close(found, normalize(by_hand, dim=1).permute(0, 2, 3, 1))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 4, 4))


def test_efficientnet_b4_has_272_channels(monkeypatch):
    with torch.device("meta"):  # shapes alone
        config = EfficientNetConfig(width_coefficient=1.4, depth_coefficient=1.8, hidden_dim=1792)
        network = EfficientNetModel(config).eval()
    monkeypatch.setattr(feature_maps, "load_efficientnet", lambda backbone: network)
    maps = FeatureMaps("google/efficientnet-b4")
    assert maps(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 14, 14, 24 + 32 + 56 + 160)


def test_a_network_without_stride_16_is_refused(tmp_path):
    config = EfficientNetConfig(
        width_coefficient=0.2, depth_coefficient=0.4, hidden_dim=256, strides=[1, 2, 1, 1, 1, 1, 1]
    )
    EfficientNetModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="backbone: it has maps of 2 sizes, and strides 2, 4, 8, 16 are 4 of them"):
        FeatureMaps(str(tmp_path), size=32, grid=4)(torch.zeros(1, 3, 32, 32))


def test_it_stays_frozen(backbone):
    maps = FeatureMaps(backbone, size=32, grid=4).train()
    assert not any(module.training for module in maps.modules())
    assert not any(p.requires_grad for p in maps.parameters())


def test_maps_are_made_once(backbone, files, tmp_path, monkeypatch):
    maps, cache = FeatureMaps(backbone, size=32, grid=4), tmp_path / "cache"
    first = maps.of_files(files, cache)
    (kept,) = cache.iterdir()
    (tmp_path / "plain").touch()
    assert kept.stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it, if the umask lets them

    def refuse(*args, **options):
        raise AssertionError("the network runs again")

    with monkeypatch.context() as patch:
        patch.setattr(maps.network, "forward", refuse)
        torch.testing.assert_close(maps.of_files(files, cache), first, rtol=0, atol=0)
        for other in (files[:2], files[::-1]):
            with pytest.raises(AssertionError, match="runs again"):
                maps.of_files(other, cache)
    kept.write_bytes(b"broken")
    torch.testing.assert_close(maps.of_files(files, cache), first)
    save_noise(files[0], seed=9)
    assert not torch.equal(maps.of_files(files, cache)[0], first[0])
    assert len(list(cache.iterdir())) == 2  # nothing half-written stays


def test_other_settings_and_weights_have_other_keys(backbone, files):
    maps = FeatureMaps(backbone, size=32, grid=4)
    keys = {maps.key(files), FeatureMaps(backbone, 32, 5).key(files), FeatureMaps(backbone, 40, 4).key(files)}
    next(maps.network.parameters()).data.add_(1)
    assert len(keys | {maps.key(files)}) == 4


def test_bad_backbones_and_images_are_refused(backbone, tmp_path):
    def refused(says, ask):
        with pytest.raises(ConfigError, match=re.escape(says)) as error:
            ask()
        assert "\n" not in str(error.value)

    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused("is of the type bert; give an EfficientNet", lambda: FeatureMaps(str(other)))
    refused("backbone: nobody/nothing is neither here nor on the hub", lambda: FeatureMaps("nobody/nothing"))
    refused("size: 16 pixels are too few for a stride of 16; give 32 or more", lambda: FeatureMaps(backbone, size=16))
    refused("grid: 0 is not positive", lambda: FeatureMaps(backbone, grid=0))
    small = FeatureMaps(backbone, size=32, grid=2)
    (tmp_path / "text.png").write_text("no image")
    refused("text.png: this is no readable image", lambda: small.of_files([tmp_path / "text.png"]))
    refused("none.png: it cannot be read", lambda: small.of_files([tmp_path / "none.png"], tmp_path))
    refused("files: there are no images", lambda: small.of_files([]))


@pytest.fixture
def folder(tmp_path):
    """Two classes in MVTec-AD's layout, with white squares for defects."""
    for c, name in enumerate(("cup", "nut")):
        for k in range(3):
            save_noise(tmp_path / name / "train" / "good" / f"{k}.png", 10 * c + k)
            save_noise(tmp_path / name / "test" / "good" / f"{k}.png", 100 + 10 * c + k)
            bad = save_noise(tmp_path / name / "test" / "hole" / f"{k}.png", 200 + 10 * c + k)
            pixels, mask = np.array(Image.open(bad)), np.zeros((48, 48), np.uint8)
            pixels[8:24, 8:24], mask[8:24, 8:24] = 255, 255
            Image.fromarray(pixels).save(bad)
            truth = tmp_path / name / "ground_truth" / "hole"
            truth.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth / f"{k}_mask.png")
    return tmp_path


@pytest.fixture
def mvtec(monkeypatch, folder, backbone, tmp_path):
    """Calls the example as from the command line, with small networks in its configs."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)
    example, loop = importlib.import_module("anomaly_mvtec"), importlib.import_module("anomaly_loop")
    for name in ("anomaly_mvtec.yaml", "anomaly_mvtec_autoencoder.yaml"):
        config = yaml.safe_load((ROOT / "configs" / name).read_text())
        config["energy"] |= {"widths": [16], "latent": 8}
        config["data"] |= {"batch_size": 32}
        if "value" in config:
            config["value"] |= {"width": 8}
        (tmp_path / name).write_text(yaml.safe_dump(config))
    monkeypatch.setattr(loop, "CONFIGS", tmp_path)
    given = f"{folder} --backbone {backbone} --size 32 --grid 4 --pretrain 3 --steps 2 --cache kept --out out"

    def call(*more):
        monkeypatch.setattr("sys.argv", ["anomaly_mvtec.py", *given.split(), *more])
        example.in_one_line(example.main)

    return call


def test_the_published_protocol_runs_end_to_end(mvtec, capsys, tmp_path):
    mvtec()
    said = capsys.readouterr().out
    assert "6 training and 12 test images of 2 classes" in said
    for title in ("autoencoder, AUROC", "EBM-VGS, AUROC"):
        assert re.search(rf"\| {title} \| det_max .*\n.*\n\| cup \|.*\n\| nut \|.*\n\| mean \|", said), said
    out = tmp_path / "out"
    found = json.loads((out / "figures.json").read_text())
    assert found["EBM-VGS"]["loc"] == pytest.approx((found["EBM-VGS"]["loc/cup"] + found["EBM-VGS"]["loc/nut"]) / 2)
    weights = [load_energy(folder).a.item() for folder in (out / "autoencoder", out / "ebm_vgs" / "energy")]
    assert weights[0] == 1 and weights[1] != 1  # the scale learns in the game alone
    assert yaml.safe_load((out / "ebm_vgs" / "run.yaml").read_text())["game"]["value_steps"] == 3

    for more, says in (
        ([], "--out: out already holds a run; give another folder, or --resume to go on with it"),
        (["--resume", "--seed", "1"], "seed: 0 -> 1"),
        (["--seed", "-1"], "--seed: -1 is not between"),
        (["--steps", "0"], "steps: 0 rounds train nothing"),
        (["--pretrain", "0"], "steps: 0 train nothing"),
    ):
        with pytest.raises(SystemExit) as stop:
            mvtec(*more)
        said = capsys.readouterr().out
        assert stop.value.code == 2 and says in said and said.splitlines()[-1].startswith("error: "), said
    before = (out / "figures.json").read_text()
    (out / "figures.json").unlink()
    mvtec("--resume")  # there is nothing left to play, so the figures are the same
    assert (out / "figures.json").read_text() == before


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda truth: (truth / "0_mask.png").unlink(), "is missing"),
        (
            lambda truth: Image.new("L", (40, 40)).save(truth / "0_mask.png"),
            "the mask has (40, 40) pixels (W,H), its image (48, 48)",
        ),
    ],
)
def test_masks_that_do_not_fit_are_told_in_one_line(mvtec, folder, capsys, spoil, says):
    spoil(folder / "nut" / "ground_truth" / "hole")
    with pytest.raises(SystemExit) as stop:
        mvtec()
    said = capsys.readouterr().out
    assert stop.value.code == 2 and said.count("\n") == 1 and "0_mask.png" in said and says in said


def test_a_folder_without_classes_is_told_in_one_line(mvtec, folder, capsys):
    (folder / "cup").rename(folder / "kept_cup")
    (folder / "kept_cup" / "train").rename(folder / "kept_cup" / "learn")
    (folder / "nut" / "train").rename(folder / "nut" / "learn")
    with pytest.raises(SystemExit) as stop:
        mvtec()
    assert stop.value.code == 2 and "there are no images in CLASS/train/good" in capsys.readouterr().out
