"""Whole runs whose values learn from kept states: resumed, and refused where they could not work."""

import json

import pytest
import torch
from conftest import interrupted, replay_run
from safetensors.torch import load_file

from dxmi.cli.main import main


@pytest.fixture
def config(write):
    return write(replay_run())


def steps(x):
    """An energy whose gradient nobody knows."""
    return x.detach().round().abs().sum(1)


def test_a_killed_run_goes_on_with_its_kept_states(config, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["train", str(config), "--out", str(whole)]) == 0
    with interrupted(3):
        assert main(["train", str(config), "--out", str(killed)]) == 1
    assert main(["train", str(config), "--out", str(killed), "--resume"]) == 0
    for player in ("value", "sampler"):
        a, b = (load_file(run / player / "model.safetensors") for run in (whole, killed))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    losses = [json.loads(line).get("replay_loss") for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert len([loss for loss in losses if loss is not None]) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--replay.fill.tau", "2"], "replay.fill.tau: 2.0 is not the sampler's, 1.0"),
        (["--replay.refine", "annealed_langevin"], "replay.refine: AnnealedLangevin changes the density"),
        (["--replay.refine", "smc"], "replay.refine: SMC changes the density"),
        (["--replay.fill", "vgs"], "replay.fill: VGS has to learn itself"),
        (["--replay.learn", "guess"], "replay.learn: expected one of ['td', 'denoise']"),
        (["--replay.fill", "rejection"], "replay.fill.scale: it is missing; give it"),
        (["--game.trace", "0.5"], "game.trace: rollouts teach nothing"),
        (["--seed", "-1"], "seed: -1 is not between"),
        (["--sampler.covariance", "posterior", "--sampler.draw", "value"], "covariance: posterior belongs to"),
        (["--sampler.probes", "0"], "probes: 0"),
        (["--value.steps", "3"], "value.steps: 3 are not the sampler's 4"),
        (
            ["--value", "separable", "--value.shape", "[2]", "--value.steps", "3"],
            "value.steps: it has fewer than the sampler's 4",
        ),
        (
            ["--value", "separable", "--value.shape", "[3]", "--value.steps", "4"],
            "value: Separable does not take (1, 2)",
        ),
        (
            ["--energy", "callable", "--energy.function", "test_replay_runs:steps", "--energy.shape", "[2]"],
            "no gradient",
        ),
    ],
)
def test_runs_that_could_not_work_are_refused(arguments, says, config, tmp_path, capsys):
    assert main(["train", str(config), "--out", str(tmp_path / "run"), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()
