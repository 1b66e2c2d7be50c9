"""Runs that learn a sampler of a known density: what they leave, and drawing from them again."""

import json

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file

from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig, read_yaml


@pytest.fixture
def small(tmp_path):
    """configs/gmm9_vgs.yaml for a few seconds."""
    config = yaml.safe_load((ROOT / "configs" / "gmm9_vgs.yaml").read_text())
    config |= {"steps": 6, "paths": 2000, "batch_size": 64, "tracker": None, "every": {"log": 2, "samples": 3}}
    config["sampler"]["steps"] = config["value"]["steps"] = 10
    config["replay"] |= {"fill": {"name": "smc", "steps": 5, "scale": 7.0}, "size": 64, "batch": 32, "steps": 1}
    config["evaluators"] = [{"name": "densities", "samples": 1000}]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_run_leaves_a_sampler_that_draws_again(small, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", str(small), "--out", str(out)]) == 0
    names = {"run.yaml", "metrics.jsonl", "sampler", "value", "samples.safetensors", "evaluation.json", "picture.png"}
    assert names | {"values.png", "training.png"} <= {path.name for path in out.iterdir()}
    saved = load_file(out / "samples.safetensors")
    assert saved["samples"].shape == (2000, 2) and saved["log_w"].isfinite().all()
    row, floor = json.loads((out / "evaluation.json").read_text())["rows"]
    found = row["metrics"]
    assert floor["name"] == "floor" and found["w2"] > floor["metrics"]["w2"] > 0 and found["modes_found"] >= 6
    assert found["elbo"] < found["log_z"] and found["elbo"] < 0 < found["eubo"] and found["log_z_exact"] == 0
    assert row["steps"] == 10 and row["samples"] == 2000 and 0 < found["ess"] <= 1
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "ess" in line] == [3, 6]

    for name in ("a", "b"):
        again = ["sample", str(out), "-n", "300", "--seed", "5", "--out", str(tmp_path / name)]
        assert main(again) == 0
    a, b = (load_file(tmp_path / name) for name in ("a", "b"))
    assert a["samples"].shape == (300, 2) and torch.equal(a["samples"], b["samples"])
    log_z = (a["log_w"].logsumexp(0) - torch.tensor(300.0).log()).item()
    assert abs(log_z - found["log_z"]) < 0.3  # the learned values were loaded, not fresh ones
    again = tmp_path / "again.json"
    assert main(["evaluate", str(out), "--out", str(again)]) == 0
    assert json.loads(again.read_text()) == json.loads((out / "evaluation.json").read_text())
    capsys.readouterr()
    assert main(["sample", str(out), "--steps", "5"]) == 2 and "--steps" in capsys.readouterr().err
    (out / "sampler" / "model.safetensors").unlink()
    assert main(["sample", str(out)]) == 2 and "finished run" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["gmm9", "gmm25", "funnel", "many_well", "dw4", "lj13"])
def test_every_config_builds(target):
    """All keys of the configs exist, and players and chains fit each other."""
    run = Checked(TrainConfig, read_yaml(ROOT / "configs" / f"{target}_vgs.yaml")).build()
    value, steps = run.value, run.sampler.steps
    x = run.sampler.initial((2, *run.energy.event_shape))
    assert value(x, torch.full((2,), steps - 1)).shape == (2,)
    run.replay.check(run.sampler.tau)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler.first", "0"], "first: 0"),
        (["--value.steps", "0"], "steps: 0"),
        (["--value", "null"], "value: the sampler follows"),
        (["--value.energy.preset", "funnel"], "preset"),
        (["--paths", "1"], "paths: 1"),
        (["--game.start", "chains"], "game.start: chains is for chains that cannot learn"),
        (["--sampler.tau", "2", "--replay", "null"], "evaluators: a density's own samples are at temperature 1"),
        (["--evaluators.0.metrics", "[aligned_w2]"], "metrics: aligned_w2 needs particles"),
        (["--sampler", "mala"], "sampler: neither this chain nor a known density learns"),
    ],
)
def test_impossible_runs_are_refused(arguments, says, small, tmp_path, capsys):
    assert main(["train", str(small), "--out", str(tmp_path / "run"), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()
