"""What ``import dxmi`` offers, and that it does what the command line does."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
import yaml
from conftest import DIGITS, ROOT
from dxmi_plugins.energies import MLPEnergy
from runs_from_before import bring
from safetensors.torch import load_file

import dxmi
from dxmi import ConfigError, Run
from dxmi.cli import main
from dxmi.config import TrainConfig

NAMES = """train pretrain sample evaluate score inspect export push Run load_energy load_report load_score plugins
Energy Sampler Report ConfigError""".split()


def test_the_names_are_there_and_documented():
    assert sorted(dxmi.__all__) == sorted(NAMES) and set(NAMES) <= set(dir(dxmi))
    assert all(getattr(dxmi, name).__doc__ for name in NAMES)


@pytest.mark.process
def test_importing_it_imports_nothing_heavy():
    """What takes long is imported by whoever asks for a name that needs it."""
    heavy = ("torch", "numpy", "diffusers", "transformers", "datasets", "jsonargparse", "yaml", "rich")
    script = f"import dxmi, sys; sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch):
    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", nothing)
    assert dxmi.__version__ == "unknown" and dxmi.ConfigError is ConfigError


def test_train_gives_the_run_that_the_command_leaves(config, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(config)
    assert main(["train", str(path), "--sampler.scheduler.steps", "3", "--out", "told"]) == 0
    run = dxmi.train(path, out="called", **{"sampler.scheduler.steps": 3})
    assert isinstance(run, Run) and run.kind == "training" and run.config == Run("told").config
    assert yaml.safe_load((run.folder / "run.yaml").read_text())["format"] == 1
    for file in ("energy/model.safetensors", "pipeline/unet/diffusion_pytorch_model.safetensors"):
        a, b = load_file(run.folder / file), load_file(tmp_path / "told" / file)
        assert all(torch.equal(a[key], b[key]) for key in a)
    again = dxmi.train(config | {"steps": 1}, out="mapping")
    assert again.config["steps"] == 1
    with pytest.raises(ConfigError, match="^out: .*; give a folder"):
        dxmi.train(config)
    with pytest.raises(ConfigError, match="^out: called already holds a run"):
        dxmi.train(path, out="called")
    for wrong in (3, run, TrainConfig):
        with pytest.raises(ConfigError, match="^config: it is a .*; give a YAML file or a mapping of its keys"):
            dxmi.train(wrong, out="other")


def test_sample_gives_what_the_command_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("density", "policy"):
        run = bring(name, tmp_path)
        assert main(["sample", str(run), "-n", "5", "--seed", "3", "--out", f"{name}.safetensors"]) == 0
        assert torch.equal(dxmi.sample(Run(run), 5, seed=3), load_file(f"{name}.safetensors")["samples"])
    images = dxmi.sample(bring("images", tmp_path), 3)
    assert images.shape == (3, 1, 8, 8) and torch.equal(images, dxmi.sample(Run(tmp_path / "images"), 3, seed=0))
    chains = dxmi.sample(ROOT / "configs" / "banana_mala.yaml", 6, steps=30, seed=1)
    assert chains.shape == (6, 2)
    with pytest.raises(ConfigError, match="^seed: -1 is not between"):
        dxmi.sample(ROOT / "configs" / "banana_mala.yaml", seed=-1)
    for given in ({"n": 0}, {"seed": -1}, {"prompts": ["a"]}, {"steps": 7}):
        with pytest.raises(ConfigError, match=f"^{next(iter(given))}: "):
            dxmi.sample(tmp_path / "density", **given)


def test_score_gives_what_the_command_prints(tmp_path, capsys):
    run = bring("digits_vgs", tmp_path)
    assert main(["score", str(run), str(DIGITS), "--json", str(tmp_path / "a.json")]) == 0
    scores = dxmi.score(run, DIGITS)
    assert scores.energies.tolist() == json.loads((tmp_path / "a.json").read_text()) and scores.metrics == {}
    with pytest.raises(ConfigError, match="^column: .* has no 'pixels'"):
        dxmi.score(run, DIGITS, column="pixels")
    with pytest.raises(ConfigError, match="^classes: AUROC needs labels"):
        dxmi.score(run, DIGITS, classes="kind")


def test_inspect_export_and_loading(teacher, tmp_path):
    run = Run(bring("images", tmp_path))
    assert dxmi.inspect(teacher)["config"]["sampler"]["name"] == "diffusion"
    with pytest.raises(ConfigError, match=f"{run.pipeline_folder} would run code of its own, scheduler/few_step.py"):
        dxmi.inspect(run)
    out = dxmi.export(run, tmp_path / "student")
    assert (out / "model_index.json").is_file() and dxmi.sample(out, 2).shape == (2, 1, 8, 8)
    with pytest.raises(ConfigError, match="^mode: 'stok' is neither"):
        dxmi.export(run, tmp_path / "other", mode="stok")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(dxmi.load_energy(run)(x), dxmi.Energy.from_pretrained(run.folder / "energy")(x))
    with pytest.raises(ConfigError, match="holds a ConvEnergy, no MLPEnergy"):
        MLPEnergy.from_pretrained(run)
    assert {plugin.name for plugin in dxmi.plugins()} >= {"conv", "diffusion", "ancestral", "fidelity"}


def test_evaluate_of_a_density_needs_no_reference(tmp_path):
    run = Run(bring("density", tmp_path))
    report = dxmi.evaluate(run, metrics=["elbo", "ess"], n=200, seeds=[1])
    assert [row["name"] for row in report.rows] == ["student"] and report.rows[0]["metrics"].keys() == {"elbo", "ess"}
    assert main(["evaluate", str(run.folder), "--metrics", "elbo,ess", "-n", "200", "--seed", "1"]) == 0
    assert json.loads((run.folder / "evaluation-1.json").read_text()) == json.loads(report.to_json())
    wrong = {"steps": [2], "seeds": [1, 2], "metrics": ["fid"], "floor": None, "column": "x", "evaluator": "anomaly"}
    for key, given in wrong.items():
        with pytest.raises(ConfigError, match=f"^{key}: "):
            dxmi.evaluate(run, **{key: given})
    with pytest.raises(ConfigError, match="^reference: give what to measure against"):
        dxmi.evaluate(bring("images", tmp_path))
    with pytest.raises(ConfigError, match="holds chains, whose figures"):
        dxmi.evaluate(bring("chains", tmp_path))


def test_pretrain_gives_its_folder(tmp_path):
    out = dxmi.pretrain(bring("score.yaml", tmp_path), tmp_path / "score", steps=2)
    network = dxmi.load_score(out)
    assert network(torch.zeros(3, 2)).shape == (3, 2)
    with pytest.raises(ConfigError, match="^out: .* already holds"):
        dxmi.pretrain(bring("score.yaml", tmp_path), tmp_path / "score", steps=2)
