"""``dxmi inspect``: what it says of every kind of pipeline, and that the config it writes runs."""

import json
import shutil

import datasets
import diffusers
import pytest
import yaml
from conftest import DIGITS
from dxmi_plugins.schedulers import few_step
from dxmi_plugins.teachers import describe
from tiny import KINDS, tiny

from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig

CLASSES = {"classes": "10 classes", "dit": "10 classes"} | dict.fromkeys(("sd", "sdxl", "sd3"), "text")
PIXELS = ("ddpm", "ddpm_variance", "edm", "annealed", "classes")
PREDICTS = {"edm": "edm", "sd3": "flow_prediction"}


def inspected(folder, tmp_path):
    assert main(["inspect", str(folder), "--json", str(tmp_path / "found.json")]) == 0
    return json.loads((tmp_path / "found.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_and_its_config_is_a_valid_run(kind, tmp_path, capsys):
    folder = tiny(kind, tmp_path / "teacher")
    found = inspected(folder, tmp_path)
    assert found["pipeline"] == json.loads((folder / "model_index.json").read_text())["_class_name"]
    assert found["prediction_type"] == PREDICTS.get(kind, "epsilon")
    assert found["images"] == [1, 8, 8] and (found["latents"] is None) == (kind in PIXELS)
    assert found["conditions"] == CLASSES.get(kind, "none")
    networks = {name: part for name, part in KINDS[kind]().components.items() if hasattr(part, "parameters")}
    assert found["parameters"].keys() == networks.keys()
    for name in networks.keys() - {"text_encoder_3"}:  # T5 ties two of its matrices
        assert found["parameters"][name] == sum(weight.numel() for weight in networks[name].state_dict().values())
    assert yaml.safe_load(capsys.readouterr().out.split("# a config")[1].split("\n", 1)[1]) == found["config"]
    config = Checked(TrainConfig, found["config"]).resolved
    text = found["conditions"] == "text"  # which people draw with guidance
    assert config["sampler"]["guidance"] == (5.0 if text else 1.0) and bool(config["game"]["imitate"]) == text
    assert config["sampler"]["name"] == "diffusion" and config["sampler"]["teacher"] == str(folder)


def test_the_schedule_is_the_schedulers(tmp_path):
    folder = tiny("ddpm", tmp_path / "t", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    found = inspected(folder, tmp_path)["schedule"]
    abar = diffusers.DDPMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    assert found["scheduler"] == "DDPMScheduler" and found["beta_schedule"] == "linear" and found["levels"] == 1000
    assert found["alpha"] == [pytest.approx(abar[0].sqrt().item(), abs=1e-6), 0.0]
    assert found["sigma"] == [pytest.approx((1 - abar[0]).sqrt().item(), abs=1e-6), 1.0]
    assert found["zero_terminal_snr"] is True


def test_weights_of_a_variant_are_counted_once(tmp_path):
    folder = tiny("ddpm", tmp_path / "t")
    before = inspected(folder, tmp_path)["parameters"]
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_suffix(".fp16.safetensors"))
    (tmp_path / "found.json").unlink()
    assert inspected(folder, tmp_path)["parameters"] == before


@pytest.fixture
def captioned(tmp_path):
    """A few digits with captions."""
    table = datasets.Dataset.from_parquet(str(DIGITS), cache_dir=str(tmp_path / "cache")).select(range(8))
    table.add_column("text", ["a digit"] * 8).to_parquet(tmp_path / "captioned.parquet")
    return tmp_path / "captioned.parquet"


@pytest.mark.parametrize(
    ("kind", "large"),
    [("ddpm", False), ("classes", False), ("ldm_kl", False), ("edm", False), ("sd", False), ("sd", True)],
)
def test_the_written_config_runs(kind, large, captioned, tmp_path, monkeypatch):
    if large:  # as a network that few can tune as a whole is treated
        monkeypatch.setattr(describe, "LARGE", 0)
    config, out = tmp_path / "config.yaml", tmp_path / "run"
    assert main(["inspect", str(tiny(kind, tmp_path / "t")), "--config", str(config)]) == 0
    small = ["--steps=2", "--data.batch_size=4", "--energy.width=4", "--tracker=null"]
    assert main(["train", str(config), f"--data.path={captioned}", *small, f"--out={out}"]) == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    assert (out / "pipeline" / "README.md").exists() and (out / "pipeline" / "lora").is_dir() == large


def test_what_is_no_teacher_or_would_be_overwritten_is_refused(tmp_path, capsys):
    pipeline = tiny("ddpm", tmp_path / "t")
    brings = shutil.copytree(pipeline, tmp_path / "brings")
    index = json.loads((brings / "model_index.json").read_text()) | {"scheduler": ["few_step", "FewStepScheduler"]}
    (brings / "model_index.json").write_text(json.dumps(index))
    shutil.copy(few_step.__file__, brings / "scheduler")
    taken = tmp_path / "taken"
    taken.write_text("")
    for given, message in (
        ([tmp_path / "absent"], f"teacher: there is no folder {tmp_path / 'absent'}"),
        (["some/pipeline"], "teacher: some/pipeline cannot be had from the hub: "),
        ([tmp_path], f"teacher: {tmp_path} is not a diffusers pipeline"),
        ([brings], f"teacher: {brings} would run code of its own, scheduler/few_step.py"),
        ([pipeline, "--config", taken], f"--config: {taken} exists; give another file"),
        ([pipeline, "--json", taken], f"--json: {taken} exists; give another file"),
        ([pipeline, "--json", tmp_path / "no" / "f"], f"--json: there is no folder {tmp_path / 'no'}"),
    ):
        assert main(["inspect", *map(str, given)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"dxmi: {message}") and error.count("\n") == 1
    assert taken.read_text() == ""


@pytest.mark.parametrize("damage", ["unet/diffusion_pytorch_model.safetensors", "model_index.json"])
def test_damaged_pipelines_are_told_in_one_line(damage, tmp_path, capsys):
    folder = tiny("ddpm", tmp_path / "teacher")
    (folder / damage).write_bytes(b"{")
    assert main(["inspect", str(folder)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"dxmi: {folder}") and complaint.count("\n") == 1
