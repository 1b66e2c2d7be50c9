"""Whole runs whose value learns by contrast, with a warm start and score distillation: products, resume, errors."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import interrupted
from contrast_runs import contrast_run, policy_run
from PIL import Image
from safetensors.torch import load_file

from dxmi.cli.main import main
from dxmi.runs import load_energy


@pytest.fixture
def images(write, teacher):
    return write(contrast_run(teacher), "images.yaml")


@pytest.fixture
def vectors(write):
    return write(policy_run(), "vectors.yaml")


@pytest.fixture(scope="module")
def finished(teacher, tmp_path_factory):
    """The folder of a run on images."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "images.yaml").write_text(yaml.safe_dump(contrast_run(teacher)))
    assert train(folder / "images.yaml", folder / "run") == 0
    return folder / "run"


def train(path, out, *more):
    return main(["train", str(path), "--out", str(out), *more])


def logged(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def files(out):
    """All weights that a run leaves, by name."""
    return {str(path.relative_to(out)): load_file(path) for path in out.rglob("*.safetensors")}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name].keys() == b[name].keys() and all(torch.equal(a[name][k], b[name][k]) for k in a[name]) for name in a
    )


def test_a_run_logs_every_node_and_tells_of_its_warm_start(images, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(images, out) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "warm start: drawing 12 paths of the teacher in 6 steps" in said and "warm start 4/4: path_loss" in said
    rounds = logged(out)
    always = {"gap_1", "gap_2", "e_data", "e_sample", "energy_size", "energy_gradient", "energy_gap", "score_loss"}
    after = {"policy_loss", "policy_gradient", "distillation", "path_loss"}
    assert len(rounds) == 4 and all(always <= line.keys() for line in rounds)
    assert [after <= line.keys() for line in rounds] == [False, True, True, True]
    assert rounds[0].keys() & after == set()
    # the means over both energy steps, at the end of the chain
    assert all(line["gap_2"] == pytest.approx(line["e_sample"] - line["e_data"], abs=1e-5) for line in rounds)


def test_its_energy_scores_clean_images(finished, tmp_path):
    """At the noise level 0, which is what an energy that reads noise takes without a t."""
    energy = load_energy(finished / "energy")
    assert energy.reads_noise and json.loads((finished / "energy" / "config.json").read_text())["steps"] == 0
    x = torch.stack([torch.full((1, 8, 8), value) for value in (-1.0, 1.0)])
    clean = energy(x)
    assert torch.equal(clean, energy(x, torch.zeros(2))) and not torch.allclose(
        clean, energy(x, torch.full((2,), 500.0))
    )
    (tmp_path / "pictures").mkdir()
    for k, grey in enumerate((0, 255)):
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(tmp_path / "pictures" / f"{k}.png")
    assert main(["score", str(finished), str(tmp_path / "pictures"), "--json", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == pytest.approx(clean.tolist(), rel=1e-5)


def test_its_pipeline_draws(finished, tmp_path, capsys):
    assert main(["sample", str(finished), "-n", "3", "--out", str(tmp_path / "g.png")]) == 0
    assert Image.open(tmp_path / "g.png").width > 3 * 64
    assert main(["sample", str(finished), "-n", "3", "--steps", "5", "--out", str(tmp_path / "h.png")]) == 2
    assert "--steps: this student was trained for 2" in capsys.readouterr().err


def test_a_policy_on_vectors_leaves_what_draws_again(vectors, tmp_path):
    out = tmp_path / "run"
    assert train(vectors, out) == 0
    assert {"energy", "sampler", "picture.png", "samples.safetensors"} <= {path.name for path in out.iterdir()}
    assert {"gap_1", "gap_2", "gap_3", "policy_loss"} <= logged(out)[-1].keys()
    assert main(["sample", str(out), "-n", "200", "--out", str(tmp_path / "again")]) == 0
    drawn = [load_file(path)["samples"] for path in (tmp_path / "again", out / "samples.safetensors")]
    assert torch.equal(*drawn) and drawn[0].shape == (200, 2)


@pytest.mark.parametrize("more", [[], ["--sampler.lora", "{rank: 2, targets: [conv1]}"]])
def test_a_killed_run_resumes_bit_for_bit(images, tmp_path, more):
    """The paths are drawn again, the score network goes on; nothing is learned from the paths a second time."""
    more = [*more, "--steps", "7"]
    assert train(images, tmp_path / "whole", *more) == 0
    with interrupted(5):
        assert train(images, tmp_path / "half", *more) == 1
    assert [path.name for path in (tmp_path / "half" / "checkpoints").iterdir()] == ["step-000004"]
    assert train(images, tmp_path / "half", *more, "--resume") == 0
    whole, half = (files(tmp_path / name) for name in ("whole", "half"))
    kinds = {name.split("/")[0] for name in whole}
    assert same(whole, half) and {"pipeline", "energy", "checkpoints"} <= kinds
    assert logged(tmp_path / "whole") == logged(tmp_path / "half")


def test_a_checkpoint_holds_the_score_network_beside_student_and_energy(finished):
    weights = [each for name, each in files(finished).items() if name.startswith("checkpoints/")]
    (student,) = (each for each in weights if "log_std" in each)
    (score,) = (each for each in weights if "conv_in.weight" in each)
    assert len(weights) == 3 and score.keys() == {key.removeprefix("network.") for key in student if "network" in key}
    assert not torch.equal(score["conv_in.weight"], student["network.conv_in.weight"])


def test_a_killed_policy_run_resumes_bit_for_bit(vectors, tmp_path):
    more = ["--steps", "7"]
    assert train(vectors, tmp_path / "whole", *more) == 0
    with interrupted(5):
        assert train(vectors, tmp_path / "half", *more) == 1
    assert train(vectors, tmp_path / "half", *more, "--resume") == 0
    assert same(files(tmp_path / "whole"), files(tmp_path / "half"))
    assert logged(tmp_path / "whole") == logged(tmp_path / "half")


def test_a_warm_start_alone_goes_before_temporal_differences_too(images, tmp_path):
    """What the warm start leaves is where the game begins, whichever way the value learns."""
    config = yaml.safe_load(images.read_text())
    config["energy"].pop("time")
    config["game"] = {"warmup": 4, "warm_start": {"paths": 12, "steps": 6, "rounds": 4}}
    images.write_text(yaml.safe_dump(config))
    assert train(images, tmp_path / "warm") == 0
    assert train(images, tmp_path / "cold", "--game.warm_start", "null") == 0
    warm, cold = (
        files(tmp_path / name)["pipeline/unet/diffusion_pytorch_model.safetensors"] for name in ("warm", "cold")
    )
    assert not torch.equal(warm["conv_in.weight"], cold["conv_in.weight"])  # in the warm-up nothing else moves it


DENSITY = ["--energy", "{name: gaussian_mixture, preset: eight_gaussians}", "--data", "null"]
CHAIN = ["--sampler", "{name: langevin, steps: 3}"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (DENSITY, "game.value: contrast needs data; take td"),
        (CHAIN, "game.value: contrast: the states of Langevin are not data with noise; take td"),
        (
            ["--energy.time", "false"],
            "energy: MLPEnergy is not told the noise level, which contrast needs; take one that",
        ),
        (["--energy.time", "true"], "energy: MLPEnergy is not told the noise level"),
        (["--game.value", "td"], "energy: MLPEnergy reads noise levels, not steps; set game.value: contrast"),
        (
            ["--value", "{name: mlp, time: true}"],
            "value: with contrast the energy is the value at every node; leave it out",
        ),
        (["--game.warm_start", "{}"], "game.warm_start: GaussianPolicy has no teacher to learn from; leave it out"),
        (["--game.distil", "1"], "game.distil: GaussianPolicy has no teacher to learn from; leave it out"),
        (["--game.imitate", "1"], "game.imitate: GaussianPolicy has no teacher to imitate"),
        (["--game.start", "data"], "game.start: data is for chains that cannot learn, or samplers that follow a value"),
        (["--replay", "{size: 9, every: 1}"], "replay: it is for samplers that follow a value"),
        (["--lr.value", "0.1"], "lr.value: there is no value network of its own"),
        (["--lr.score", "0.1"], "lr.score: no score network learns without game.distil; leave it out"),
    ],
)
def test_parts_that_do_not_fit_are_refused(vectors, arguments, says, tmp_path, capsys):
    assert train(vectors, tmp_path / "run", *arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"dxmi: {says}") and complaint.count("\n") == 1, complaint
    assert not (tmp_path / "run").exists()


TD = ["--game.value", "td", "--energy.time", "false"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--game.value", "guess"], "game.value: expected one of ['td', 'contrast']"),
        (["--game.loss", "wgan"], "game.loss: expected one of"),
        (["--game.penalties", "none"], "game.penalties: expected one of"),
        (["--game.node_weights", "amp"], "game.node_weights: expected one of"),
        (["--game.energy_steps", "0"], "game.energy_steps: 0 is not positive"),
        (["--game.renoise", "1.5"], "game.renoise: 1.5 is no share"),
        (["--game.renoise", "-0.1"], "game.renoise: -0.1 is no share"),
        (["--game.renoise", ".nan"], "game.renoise: nan is no share"),
        (["--game.distil", "-1"], "game.distil: -1.0 is negative"),
        (["--game.sweep", "true"], "game.sweep: contrast learns from all transitions; leave it out"),
        ([*TD, "--game.distil", "0", "--game.renoise", "0.2"], "game.renoise: it is for value: contrast; leave it out"),
        ([*TD, "--game.distil", "0", "--game.node_weights", "equal"], "game.node_weights: it is for value: contrast"),
        (["--game.value_steps", "2"], "game.value_steps: it is for value: td; set energy_steps"),
        (["--game.noised", "0.5"], "game.noised: it is for value: td; leave it out"),
        (["--game.warm_start.paths", "0"], "game.warm_start.paths: 0 is not positive"),
        (["--game.warm_start.steps", "-1"], "game.warm_start.steps: -1 is not positive"),
        (["--game.warm_start.rounds", "0"], "game.warm_start.rounds: 0 is not positive"),
        (["--game.warm_start.rate", "0"], "game.warm_start.rate: 0.0 is not positive"),
        (["--game.warm_start.keep", "-1"], "game.warm_start.keep: -1.0 is negative"),
        (["--game.warm_start.round", "5"], "game.warm_start.round: no such key; nearest: rounds"),
        (["--game.warm_start", "yes"], "game.warm_start: expected one of mapping, null"),
        ([*TD, "--game.distil", "1", "--game.warm_start.keep", "0"], "game.distil: it is for value: contrast"),
        ([*TD, "--game.distil", "0"], "game.warm_start.keep: it is for value: contrast"),
        (["--lr.score", "0"], "lr.score: 0.0 is not positive"),
        (["--clip.score", "-1"], "clip.score: -1.0 is not positive"),
    ],
)
def test_keys_out_of_range_are_refused(images, arguments, says, tmp_path, capsys):
    assert train(images, tmp_path / "run", *arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"dxmi: {says}") and complaint.count("\n") == 1, complaint
    assert not (tmp_path / "run").exists()
