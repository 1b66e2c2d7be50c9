"""``dxmi evaluate RUN``: log-weights, distances and floors of a sampler that a run left."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from dxmi_plugins.evaluators.densities.evaluator import Densities
from torch import Generator

from dxmi.api import ConfigError, Cost, Energy, Sampler
from dxmi.api.reference import reference_samples
from dxmi.chains import log_weight_figures, save_values
from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig, build_plugin
from dxmi.evaluation.density_figures import density_floor, halves
from dxmi.runs import Run
from dxmi.runs.energy import save_energy
from dxmi.training.finish_density import save_training

GMM9 = {"name": "gaussian_mixture", "preset": "gmm9"}
DW4 = {"name": "mean_free", "energy": {"name": "dw4"}}
VGS = {"name": "vgs", "steps": 8, "chain": "ve", "schedule": "exponential", "first": 4.0, "last": 0.05, "start": 7.0}


def leave_run(folder, energy, **keys):
    """A folder as a run leaves it, of a sampler that has not learned anything yet."""
    value = {"name": "informed", "energy": energy, "steps": 8, "start": 7.0}
    config = Checked(TrainConfig, {"energy": energy, "sampler": VGS, "value": value, "paths": 400, "seed": 3, **keys})
    torch.manual_seed(0)
    run = config.build()
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(config.resolved))
    run.sampler.save_pretrained(folder / "sampler")
    if run.value is not None:
        save_energy(run.value, config.resolved["value"], run.sampler.steps, folder / "value")
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs by name; "mala" has a chain that does not tell its transitions, "warm" one at temperature 2."""
    root = tmp_path_factory.mktemp("runs")
    chain = {"sampler": {"name": "mala", "steps": 20, "warmup": 10}, "value": None}
    return {
        "gmm9": leave_run(root / "gmm9", GMM9),
        "mala": leave_run(root / "mala", GMM9, **chain),
        "dw4": leave_run(
            root / "dw4", DW4, sampler={**VGS, "clip": 5.0}, evaluators=[{"name": "densities", "samples": 50}]
        ),
        "trimer": leave_run(
            root / "trimer", {"name": "mean_free", "energy": {"name": "lennard_jones", "particles": 3}}
        ),
        "warm": leave_run(root / "warm", GMM9, sampler={**VGS, "tau": 2.0}),
    }


@pytest.mark.parametrize(
    ("energy", "first", "last", "start"),
    [
        (GMM9, 4.0, 0.05, 7.0),
        ({"name": "gaussian_mixture", "preset": "gmm25"}, 4.0, 0.05, 9.0),
        ({"name": "funnel"}, 1.0, 0.01, 3.0),
        ({"name": "many_well"}, 1.0, 0.01, 2.0),
        ({"name": "banana"}, 1.0, 0.01, 3.0),
        ({"name": "double_well"}, 1.0, 0.01, 2.0),
    ],
    ids=["gmm9", "gmm25", "funnel", "many_well", "banana", "double_well"],
)
def test_log_z_lies_between_its_bounds(energy, first, last, start):
    """Even of a sampler that has not learned: ELBO <= log Z <= EUBO, and each estimator on its bound's inner side."""
    torch.manual_seed(0)
    value = build_plugin(Energy, {"name": "informed", "energy": energy, "steps": 8, "start": start})
    sampler = build_plugin(Sampler, {**VGS, "first": first, "last": last, "start": start})
    cost = Cost(build_plugin(Energy, energy), value, 8)
    _, found = log_weight_figures(sampler, cost, 500, seed=0)
    assert found["elbo"] < found["log_z_exact"] < found["eubo"]
    assert found["elbo"] <= found["log_z"] and found["log_z_forward"] <= found["eubo"]
    assert 1 / 500 <= found["ess"] <= 1


def test_references_are_exact_or_stored():
    exact = reference_samples(build_plugin(Energy, GMM9), 30, Generator().manual_seed(0))
    assert exact.exact and len(exact) == 30 and exact[3].shape == (2,)
    energy = build_plugin(Energy, DW4)
    stored = reference_samples(energy, 10_000, Generator().manual_seed(0))
    assert not stored.exact and len(stored) == 4000  # each once
    rows = (tensor.sort(0)[0] for tensor in (stored.samples[:, 0, 0], energy.reference()[:, 0, 0]))
    assert torch.equal(*rows)
    torch.testing.assert_close(energy(stored.samples), energy.energy(energy.embed(stored.samples)))
    assert energy(stored.samples).mean() == pytest.approx(-22.541, abs=0.15)  # std 1.905/sqrt(4000) = .03 if exact
    with pytest.raises(ConfigError, match="MLPEnergy has neither"):
        reference_samples(build_plugin(Energy, {"name": "mlp"}), 3)


def test_the_floor_is_one_half_of_the_reference_against_the_other():
    energy, evaluator = build_plugin(Energy, DW4), Densities(samples=100)
    parts = halves(energy, 1.0, 100, seed=0)
    floor = density_floor([evaluator], parts)
    assert floor["metrics"] == evaluator(lambda n: parts.other[:n], parts.reference)
    assert floor["samples"] == 100 and min(floor["metrics"].values()) > 0
    apart = torch.cdist(parts.other.flatten(1), parts.reference.samples.flatten(1))
    assert apart.min() > 0  # no stored sample in both


def test_evaluate_prints_and_writes_figures_beside_floors(runs, tmp_path, capsys):
    outs = [tmp_path / "a.json", tmp_path / "b.json"]
    assert [main(["evaluate", runs["gmm9"], "--out", str(out)]) for out in outs] == [0, 0]
    shown = capsys.readouterr().out
    assert outs[0].read_text() == outs[1].read_text()
    found = json.loads(outs[0].read_text())
    student, floor = found["rows"]
    assert (student["name"], student["samples"], student["steps"]) == ("student", 400, 8)
    assert (floor["name"], floor["samples"]) == ("floor", 400)  # as many as there are paths
    assert {"elbo", "eubo", "ess", "log_z", "w2"} <= set(student["metrics"])
    assert set(floor["metrics"]) < set(student["metrics"]) and student["metrics"]["w2"] > floor["metrics"]["w2"] > 0
    assert found["stamp"]["seed"] == 3 and found["stamp"]["reference"] == {"kind": "exact draws", "size": 400}
    assert f"{floor['metrics']['w2']:.3f}" in shown and f"{student['metrics']['elbo']:.3f}" in shown

    assert main(["evaluate", runs["gmm9"], "-n", "90", "--seed", "5", "--metrics", "ess, w2,side_error"]) == 0
    found = json.loads(Path(runs["gmm9"], "evaluation-5.json").read_text())
    student, floor = found["rows"]
    assert student["samples"] == 90 and list(student["metrics"]) == ["ess", "w2", "side_error"]
    assert list(floor["metrics"]) == ["w2", "side_error"]


def test_evaluate_measures_particles_against_stored_samples(runs, tmp_path):
    out = tmp_path / "dw4.json"
    assert main(["evaluate", runs["dw4"], "--metrics", "aligned_w2,energy_w2,elbo", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    student, floor = found["rows"]
    assert floor["samples"] == 50 and found["stamp"]["reference"]["kind"].startswith("stored")  # the run's own option
    assert student["metrics"]["aligned_w2"] > floor["metrics"]["aligned_w2"] > 0


WILD = ({"ess": 0.0, "elbo": -math.inf, "log_z": math.nan, "log_z_exact": 0.0}, True)


def test_pictures_are_drawn_where_there_is_something_to_show(runs, tmp_path):
    values, training, metrics = (tmp_path / name for name in ("values.png", "training.png", "metrics.jsonl"))
    for name, flat in (("gmm9", True), ("dw4", False)):
        run, cost, *_ = Run(runs[name]).finished()
        save_values(run.sampler, cost, values)
        assert values.exists() == flat
        values.unlink(missing_ok=True)
    run, cost, *_ = Run(runs["gmm9"]).finished()
    run.value.shift.data.fill_(1e14)  # it ran away: no contours, but the states can be seen
    save_values(run.sampler, cost, values)
    assert values.exists()
    for line, seen in (({"e_sample": 1.0}, False), ({"ess": 0.2, "elbo": -1.0, "log_z": 0.1}, True), WILD):
        metrics.write_text(json.dumps({"step": 1, **line}) + "\n")
        save_training(metrics, training)
        assert training.exists() == seen


def test_what_cannot_be_had_is_left_out_with_a_note(runs, tmp_path, capsys):
    out = str(tmp_path / "found.json")
    assert main(["evaluate", runs["mala"], "-n", "50", "--out", out]) == 0
    assert "note: no log-weights: sampler: MALA does not tell its transitions" in capsys.readouterr().err
    (student, floor) = json.loads(Path(out).read_text())["rows"]
    assert "w2" in student["metrics"] and not {"ess", "elbo"} & set(student["metrics"])

    for run, reason in (("trimer", "MeanFree has neither exact nor stored"), ("warm", "at temperature 1")):
        assert main(["evaluate", runs[run], "-n", "50", "--out", out]) == 0
        assert reason in capsys.readouterr().err
        (student,) = json.loads(Path(out).read_text())["rows"]
        assert list(student["metrics"]) == ["elbo", "log_z", "ess"]


@pytest.mark.parametrize(
    ("run", "metrics", "says"),
    [
        ("gmm9", "fid", "'fid' is none of elbo, log_z, ess"),
        ("gmm9", "aligned_w2", "aligned_w2 needs particles"),
        ("mala", "ess", "ess: sampler: MALA does not tell its transitions"),
        ("dw4", "eubo", "eubo needs exact samples, and MeanFree has none"),
        ("warm", "log_z_forward", "exact samples, and these are at temperature 1, the sampler is at 2.0"),
        ("warm", "w2", "at temperature 1, the sampler's at 2.0"),
        ("trimer", "log_z_exact", "MeanFree knows its log Z not"),
        ("trimer", "aligned_w2", "neither exact nor stored samples"),
    ],
)
def test_what_is_asked_for_and_cannot_be_had_is_refused(run, metrics, says, runs, capsys):
    assert main(["evaluate", runs[run], "--metrics", metrics]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1


def test_folders_that_are_no_finished_density_run_are_refused(runs, tmp_path, capsys):
    images, vectors, unfinished = (tmp_path / name for name in ("images", "vectors", "unfinished"))
    data = "data: {path: some.parquet}"
    for folder, text in ((images, data), (vectors, data), (unfinished, Path(runs["gmm9"], "run.yaml").read_text())):
        folder.mkdir()
        (folder / "run.yaml").write_text(text)
    (vectors / "energy").mkdir()
    (vectors / "energy" / "config.json").write_text('{"shape": [2]}')
    for arguments, says in (
        (
            [str(images)],
            "holds no finished run; go on with it by 'dxmi train ... --resume', or resume=True of dxmi.train",
        ),
        ([str(vectors)], "'dxmi train' leaves in evaluation.json"),
        (
            [str(unfinished)],
            "holds no finished run; go on with it by 'dxmi train ... --resume', or resume=True of dxmi.train",
        ),
        ([str(tmp_path / "none")], "--reference: give what to measure against"),
        ([runs["gmm9"], "-n", "1"], "-n: give at least 2"),
        ([runs["gmm9"], "--out", str(tmp_path / "none" / "a.json")], "--out: there is no folder"),
    ):
        assert main(["evaluate", *arguments]) == 2
        complaint = capsys.readouterr().err
        assert says in complaint and complaint.count("\n") == 1
