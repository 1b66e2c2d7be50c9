"""Whole runs that learn from vectors and from draws of a density."""

import json
import math

import datasets
import pytest
import torch
import yaml
from conftest import interrupted
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from PIL import Image
from safetensors.torch import load_file

from dxmi.cli.main import main
from dxmi.runs import load_energy

RING = {"density": {"name": "gaussian_mixture", "preset": "eight_gaussians"}, "batch_size": 32}


@pytest.fixture
def pcd(tmp_path):
    """Eight rounds of persistent contrastive divergence on eight Gaussians."""
    config = {
        "data": RING,
        "energy": {"name": "mlp", "width": 16},
        "sampler": {"name": "langevin", "steps": 3, "step_size": 0.01},
        "game": {"start": "chains", "chains": 64, "reinit": 0.1, "gamma": 0.1},
        "steps": 8,
        "paths": 200,
        "long_chain": 2,
        "every": {"log": 1, "samples": 4, "checkpoint": 3},
        "tracker": None,
        "evaluators": [{"name": "densities", "samples": 100}],
    }
    path = tmp_path / "pcd.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


VGS = [
    *("--sampler", "{name: vgs, steps: 4, chain: ve, first: 1.0, last: 0.05, start: 2.0}"),
    *("--value", "{name: mlp, width: 16, time: true}", "--game", "{warmup: 2}"),
]


def train(path, out, *more):
    return main(["train", str(path), "--out", str(out), *more])


def weights(out):
    return load_file(out / "energy" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_chain_is_evaluated_at_its_own_length_and_at_more(pcd, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(pcd, out) == 0
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    assert [(row["name"], row["steps"]) for row in rows] == [("chain", 3), ("long chain", 6), ("floor", None)]
    assert all(row["metrics"]["modes_found"] >= 0 and row["metrics"]["w2"] > 0 for row in rows)
    logged = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"e_data", "e_sample", "energy_gap", "energy_size", "energy_gradient"} <= logged.keys()
    assert logged["energy_size"] >= abs(logged["e_data"] + logged["e_sample"]) / 2 and logged["energy_gradient"] > 0
    assert Image.open(out / "picture.png").width > 500
    assert not (out / "sampler").exists() and not (out / "pipeline").exists()
    samples = load_file(out / "samples.safetensors")["samples"]
    assert samples.shape == (200, 2)
    assert main(["sample", str(out), "-n", "200", "--out", str(tmp_path / "again")]) == 0
    assert torch.equal(load_file(tmp_path / "again")["samples"], samples)
    capsys.readouterr()
    assert main(["sample", str(out), "--steps", "9"]) == 2 and "--steps" in capsys.readouterr().err
    (out / "energy" / "model.safetensors").unlink()
    assert main(["sample", str(out)]) == 2 and "no energy folder" in capsys.readouterr().err


def test_a_value_guided_sampler_learns_with_its_energy(pcd, tmp_path):
    out = tmp_path / "run"
    assert train(pcd, out, *VGS) == 0
    assert {"sampler", "value", "energy", "picture.png"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "evaluation.json").read_text())["rows"][0]["name"] == "student"
    logged = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"value_loss", "start_loss", "energy_gap"} <= logged.keys()
    assert main(["sample", str(out), "-n", "200", "--out", str(tmp_path / "again")]) == 0
    assert torch.equal(load_file(tmp_path / "again")["samples"], load_file(out / "samples.safetensors")["samples"])


def test_rollouts_from_data_leave_the_start_alone(pcd, tmp_path, capsys):
    """Values are learned around the data then, and not where the sampler itself starts: nothing is drawn from there."""
    for start, moved in (("noise", True), ("data", False)):
        out = tmp_path / start
        assert train(pcd, out, *VGS, "--game.start", start, "--lr.std", "0.1", "--evaluators", "[]") == 0
        found = load_file(out / "sampler" / "model.safetensors")["log_std"].item()
        assert (found != pytest.approx(math.log(2))) == moved
        logged = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
        assert ("start_loss" in logged) == moved and "value_loss" in logged
        assert all((out / name).exists() == moved for name in ("samples.safetensors", "picture.png"))
    capsys.readouterr()
    assert main(["sample", str(out), "--out", str(tmp_path / "drawn")]) == 2 and not (tmp_path / "drawn").exists()
    said = capsys.readouterr().err
    assert f"{out}: with game.start: data values are learned near the data alone" in said and said.count("\n") == 1


@pytest.mark.parametrize("more", [[], VGS])
def test_a_killed_run_on_draws_resumes_bit_for_bit(pcd, tmp_path, more):
    more = [*more, "--evaluators", "[]"]
    assert train(pcd, tmp_path / "whole", *more) == 0
    with interrupted(5):
        assert train(pcd, tmp_path / "half", *more) == 1
    assert train(pcd, tmp_path / "half", *more, "--resume") == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "half"))
    texts = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "half")]
    assert texts[0] == texts[1]


def test_an_energy_that_is_not_finite_stops_before_its_step(pcd, tmp_path, capsys, monkeypatch):
    """The run tells the round, keeps its last checkpoint and goes on from there."""
    out, step, seen = tmp_path / "run", Langevin.step, []

    def diverging(self, x, t, cost_to_go, generator=None, cond=None):
        seen.append(1)  # one step of a trial before the first round, three in each
        return step(self, x, t, cost_to_go, generator, cond) * (math.inf if len(seen) > 16 else 1)

    monkeypatch.setattr(Langevin, "step", diverging)
    assert train(pcd, out) == 1
    monkeypatch.undo()
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("dxmi: failed: energy: the loss is not finite in round 6; lower lr.energy")
    assert f"{out / 'checkpoints' / 'step-000003'} is kept" in complaint
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 5
    assert train(pcd, out, "--resume") == 0 and train(pcd, tmp_path / "whole") == 0
    assert same(weights(out), weights(tmp_path / "whole"))


def test_energies_that_are_only_looked_at_may_be_infinite(tmp_path):
    """A sampler that learns a known density logs the mean of the finite ones, and goes on."""
    config = {
        "energy": {"name": "callable", "function": "test_vector_runs:walled", "shape": [1]},
        "sampler": {"name": "vgs", "steps": 3, "drift": "posterior"},
        "value": {"name": "mlp", "width": 8, "time": True},
        "game": {"ceiling": 10.0},
        "steps": 2,
        "batch_size": 16,
        "every": {"log": 1},
        "tracker": None,
    }
    path, out = tmp_path / "walled.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(config))
    assert train(path, out) == 1  # some of the samples at the end are in the wall too, and the run says so
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(logged) == 2 and all(line["e_sample"] == 0 and line["value_loss"] > 0 for line in logged)


def walled(x):
    """A flat energy with a wall at 0."""
    return torch.where(x > 0, 0 * x, math.inf).sum(1)


def test_energies_of_stored_vectors(pcd, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    out, rows = tmp_path / "run", [[0.0, 2.0], [9.0, 9.0], [1.5, 1.5]]
    path = str(tmp_path / "vectors.parquet")
    datasets.Dataset.from_dict({"x": rows}).to_parquet(path)
    assert train(pcd, out, "--data", f"{{path: {path}, column: x}}", "--evaluators", "[]") == 0
    assert main(["score", str(out), path, "--column", "x", "--json", str(tmp_path / "s.json")]) == 0
    expected = load_energy(out / "energy")(torch.tensor(rows)).tolist()
    assert json.loads((tmp_path / "s.json").read_text()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--game.chains", "1000000000000"], "game.chains: 1000000000000 states of 2 numbers take"),
        ([*VGS, "--replay", "{size: 1000000000000, every: 1}"], "replay: its states come from a known density"),
        (["--game.chains", "8"], "game.chains: 8 do not fill a batch of 32"),
        (["--game.reinit", "1.5"], "game.reinit: 1.5"),
        (["--long_chain", "0"], "long_chain: 0"),
        (["--game.loss", "n2ce"], "game.magnitude: n2ce needs one"),
        (["--data.path", "x.parquet"], "data: give either a path or a density"),
        (["--data.density.preset", "five"], "preset"),
        (["--energy.activation", "sine"], "energy.activation"),
        ([*VGS, "--game.start", "data"], "evaluators: with game.start: data values are learned near the data alone"),
        ([*VGS, "--game.start", "chains"], "game.start: chains is for chains that cannot learn; leave it out"),
    ],
)
def test_impossible_runs_are_refused(pcd, tmp_path, capsys, arguments, says):
    assert train(pcd, tmp_path / "run", *arguments) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_replay_larger_than_memory_is_refused(tmp_path, capsys):
    config = {
        "energy": {"name": "gaussian_mixture", "preset": "gmm9"},
        "sampler": {"name": "vgs", "steps": 3},
        "value": {"name": "mlp", "time": True},
        "replay": {"size": 10**12, "every": 1},
    }
    path = tmp_path / "replay.yaml"
    path.write_text(yaml.safe_dump(config))
    assert train(path, tmp_path / "run", "--tracker", "null") == 2
    complaint = capsys.readouterr().err
    assert "replay.size: 1000000000000 states of 2 numbers take" in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()
