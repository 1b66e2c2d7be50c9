"""The road of anomaly detection: pretrain an autoencoder, play the game from its weights, score labelled data."""

import json
import re

import datasets
import pytest
import torch
from conftest import interrupted
from datasets import ClassLabel, Dataset
from dxmi_plugins.energies.sphere_autoencoder import SphereAutoencoder
from dxmi_plugins.evaluators.anomaly.auroc import auroc
from torch.nn.functional import normalize

from dxmi.cli.main import main
from dxmi.config import DataConfig
from dxmi.data import load_vectors
from dxmi.runs import load_energy

ENERGY = {"name": "sphere_autoencoder", "widths": [16], "latent": 2, "tau": 0.05}


@pytest.fixture
def cells(tmp_path):
    """400 unit vectors near a plane of R^6, 40 others anywhere: good ones alone, and both with labels and classes."""
    torch.manual_seed(0)
    near = torch.cat([torch.randn(400, 2), 0.05 * torch.randn(400, 4)], 1)
    vectors = normalize(torch.cat([near, torch.randn(40, 6)]), dim=1)
    labels, kinds = [0] * 400 + [1] * 40, ["cup", "nut"] * 220
    good, known = tmp_path / "good.parquet", tmp_path / "known.parquet"
    Dataset.from_dict({"cell": vectors[:400].tolist()}).to_parquet(str(good))
    flags = {"bad": labels, "flag": [bool(label) for label in labels], "alike": [0] * 440, "odd": [2] + labels[1:]}
    words = {"word": ["good"] * 440, "kind": kinds, "one": [str(label) for label in labels]}
    gaps = {"gap": [*kinds[:7], None, *kinds[8:]], "real": [0.5] * 440, "long": ["x" * 500] * 440}
    table = Dataset.from_dict({"cell": vectors.tolist(), **flags, **words, **gaps, "coded": gaps["gap"]})
    table.cast_column("coded", ClassLabel(names=["cup", "nut"])).to_parquet(str(known))
    return good, known


@pytest.fixture
def pretrain(cells, write, tmp_path):
    """Run the command with other keys; returns the folder and the status."""

    def run(**keys):
        data = {"path": str(cells[0]), "column": "cell", "batch_size": 100}
        common = {"data": data, "objective": "reconstruction", "energy": ENERGY, "steps": 150}
        path = write({**common, "lr": 1e-2, "warmup": 0, "ema": 0.9, **keys}, "autoencoder.yaml")
        return tmp_path / "autoencoder", main(["pretrain", str(path), "--out", str(tmp_path / "autoencoder")])

    return run


@pytest.fixture
def game(cells, write, tmp_path):
    """A short game as a file of its own folder, with other keys."""

    def config(**keys):
        common = {
            "steps": 4,
            "data": {"path": str(cells[0]), "column": "cell", "batch_size": 50},
            "energy": ENERGY,
            "energy_weights": "./autoencoder",
            "sampler": {"name": "sphere_vgs", "steps": 2, "schedule": "constant", "first": 1e-2},
            "value": {"name": "mlp", "width": 8, "time": True},
            "game": {"start": "data", "warmup": 0},
            "every": {"log": 1, "checkpoint": 2},
            "tracker": None,
        }
        return str(write(common | keys, "game.yaml"))

    return config


def refused(arguments, capsys, says):
    """Exit status 2 and one line."""
    capsys.readouterr()
    status, said = main(arguments), capsys.readouterr().err
    assert status == 2 and said.count("\n") == 1 and re.search(says, said), said


def test_an_autoencoder_learns_to_give_the_data_back(pretrain, cells):
    out, status = pretrain()
    energy, good = load_energy(out), load_vectors(DataConfig(path=str(cells[0]), column="cell"))[:]
    torch.manual_seed(0)
    fresh = SphereAutoencoder([16], 2, 0.05)
    assert status == 0 and energy.a == 1 and energy.tau == 0.05  # neither is for the autoencoder to learn
    assert energy.reconstruction_loss(good) < 0.1 * fresh.reconstruction_loss(good)
    assert energy(torch.eye(6)[2:]).min() > 5 * energy(good).mean()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"energy": "mlp"}, "energy: MLPEnergy has no reconstruction_loss; take an autoencoder, as sphere_autoencoder"),
        ({"energy": None}, "energy: name an autoencoder"),
        ({"score": {}}, "score: objective reconstruction trains an energy; leave it out"),
        ({"unet": {"layers_per_block": 1}}, "unet: no UNet is trained here"),
        ({"sigma": 1.0}, "sigma: objective reconstruction does not use it"),
        ({"seed": -1}, "seed: -1 is not between 0 and"),
    ],
)
def test_what_gives_nothing_back_is_refused(pretrain, capsys, keys, says):
    out, status = pretrain(**keys)
    said = capsys.readouterr().err
    assert status == 2 and said.count("\n") == 1 and says in said and not out.exists()


def test_a_game_starts_from_the_weights_of_a_folder(pretrain, game, tmp_path):
    """With a learning rate of nearly nothing the run's energy is the autoencoder's; a run is such a folder too."""
    out, _ = pretrain(steps=2)
    slow = {"lr": {"energy": 1e-30, "value": 1e-3}}
    assert main(["train", game(**slow), "--out", str(tmp_path / "run")]) == 0
    path = game(**slow, energy_weights="./run", seed=1)
    assert main(["train", path, "--out", str(tmp_path / "again")]) == 0
    first = load_energy(out).state_dict()
    for folder in ("run", "again"):
        for name, weights in load_energy(tmp_path / folder / "energy").state_dict().items():
            assert torch.equal(weights, first[name])


def test_a_resumed_game_has_its_checkpoint_and_needs_no_weights(pretrain, game, tmp_path):
    """The folder is gone by then, and the run ends as if nothing had happened."""
    out, _ = pretrain(steps=2)
    path = game()
    assert main(["train", path, "--out", str(tmp_path / "whole")]) == 0
    with interrupted(2):
        assert main(["train", path, "--out", str(tmp_path / "cut")]) == 1
    out.rename(tmp_path / "elsewhere")
    assert main(["train", path, "--out", str(tmp_path / "cut"), "--resume"]) == 0
    whole, cut = (load_energy(tmp_path / name / "energy").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(weights, cut[name]) for name, weights in whole.items())


def test_other_options_that_fit_are_told(pretrain, game, tmp_path, capsys):
    pretrain(steps=2)
    assert main(["train", game(energy=ENERGY | {"tau": 0.1}), "--out", str(tmp_path / "run")]) == 0
    assert "learned with other options: energy.tau: 0.05 -> 0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"energy_weights": "./nowhere"}, r"energy_weights: \S+/nowhere: is no energy folder .* 'dxmi pretrain' left"),
        ({"energy": ENERGY | {"latent": 3}}, r"energy_weights: the weights in \S+ do not fit .* energy.latent: 2 -> 3"),
        ({"energy": "mlp"}, r"energy_weights: \S+ holds a sphere_autoencoder, energy is mlp"),
    ],
)
def test_weights_that_do_not_fit_are_refused(pretrain, game, tmp_path, capsys, keys, says):
    pretrain(steps=2)
    refused(["train", game(**keys), "--out", str(tmp_path / "run")], capsys, says)
    assert not (tmp_path / "run").exists()


def test_weights_of_other_data_are_refused(pretrain, game, tmp_path, capsys):
    pretrain(steps=2)
    Dataset.from_dict({"cell": torch.eye(7).tolist()}).to_parquet(str(tmp_path / "wide.parquet"))
    path = game(data={"path": "./wide.parquet", "column": "cell", "batch_size": 4})
    refused(["train", path, "--out", str(tmp_path / "run")], capsys, "energy_weights: .*size mismatch.*6.*7")


def test_a_known_density_has_no_weights(write, tmp_path, capsys):
    config = {"energy": "banana", "sampler": "vgs", "value": {"name": "mlp", "time": True}, "tracker": None}
    path = str(write(config | {"energy_weights": "./nowhere"}))
    refused(["train", path, "--out", str(tmp_path / "run")], capsys, "energy_weights: banana has nothing to learn")


def test_labels_give_auroc_beside_energies(pretrain, cells, tmp_path, capsys):
    out, _ = pretrain()
    capsys.readouterr()
    score = ["score", str(out), str(cells[1]), "--column", "cell"]
    assert main([*score, "--labels", "bad", "--classes", "kind", "--json", str(tmp_path / "s.json")]) == 0
    found, said = json.loads((tmp_path / "s.json").read_text()), capsys.readouterr()
    energies, labels = torch.tensor(found["energies"]), torch.arange(440) >= 400
    own = {f"det/{kind}": auroc(labels[k::2].long(), energies[k::2]) for k, kind in enumerate(("cup", "nut"))}
    assert found["metrics"] == pytest.approx(own | {"det": sum(own.values()) / 2}, abs=1e-12)
    assert found["metrics"]["det"] > 0.9 and "roc_auc_score" in found["evaluator"]["implementation"]
    assert re.search(rf"det/cup +{own['det/cup']:.4f}", said.err) and said.out == f"{tmp_path / 's.json'}\n"

    assert main([*score, "--labels", "flag"]) == 0  # bool too; what is printed stays a list of energies
    said = capsys.readouterr()
    assert [float(line) for line in said.out.split()] == pytest.approx(energies.tolist(), rel=1e-5)
    assert re.search(rf"det +{auroc(labels.long(), energies):.4f}", said.err) and "cup" not in said.err


def test_labelled_data_are_opened_once(pretrain, cells, monkeypatch):
    (out, _), opened, load = pretrain(steps=2), [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **more: opened.append(1) or load(*given, **more))
    assert main(["score", str(out), str(cells[1]), "--column", "cell", "--labels", "bad"]) == 0 and opened == [1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--labels none", r"labels: \S+ has no column 'none'; it has cell, bad,"),
        ("--labels bad --classes none", r"classes: \S+ has no column 'none'"),
        ("--labels alike", "labels: all are good; AUROC needs both kinds"),
        ("--labels odd", "labels: row 0 of 'odd' is 2; they are 0 for good and 1 for defect"),
        ("--labels one", "labels: row 0 of 'one' is '0'; they are 0 for good and 1 for defect"),
        ("--labels bad --classes one", "labels: all are good in class '0'"),
        ("--labels bad --classes gap", "classes: row 7 of 'gap' is None; give each a name or a whole number"),
        ("--labels bad --classes coded", "classes: row 7 of 'coded' is (None|-1); give each a name or a whole number"),
        ("--labels bad --classes real", "classes: row 0 of 'real' is 0.5; give each a name or a whole number"),
        ("--labels long", r"labels: row 0 of 'long' is 'x{9,20}\.\.\.x{9,20}'; they are 0"),
        ("--labels alike --classes long", r"labels: all are good in class 'x{9,20}\.\.\.x{9,20}'"),
        ("--classes kind", "--classes: AUROC needs labels; give --labels too"),
    ],
)
def test_labels_that_rank_nothing_are_refused(pretrain, cells, tmp_path, capsys, given, says):
    out, _ = pretrain(steps=2)
    score = ["score", str(out), str(cells[1]), "--column", "cell", "--json", str(tmp_path / "s.json")]
    refused([*score, *given.split()], capsys, says)
    assert not (tmp_path / "s.json").exists()


def test_what_cannot_be_sampled_says_what_it_is(pretrain, write, tmp_path, capsys):
    out, _ = pretrain(steps=2)
    refused(
        ["sample", str(out)], capsys, "autoencoder: is an energy; rank data with 'dxmi score', or start 'dxmi train'"
    )
    data = {"density": {"name": "gaussian_mixture", "preset": "eight_gaussians"}}
    path = write({"data": data, "objective": "implicit", "score": {"width": 4}, "steps": 1})
    assert main(["pretrain", str(path), "--out", str(tmp_path / "scores")]) == 0
    refused(["sample", str(tmp_path / "scores")], capsys, "scores: is a score network; draw with .*load_score")
    refused(["sample", str(tmp_path)], capsys, "is no diffusers pipeline .there is no .*/model_index.json.")
