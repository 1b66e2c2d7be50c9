"""The scripts that make what the README says of evaluation, from end to end on little."""

import json
import sys

import torch
from conftest import DIGITS, ROOT, load_benchmark, load_example
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from dxmi_plugins.evaluators.extractors.classifier import Classifier


def test_the_memory_benchmark_measures_one_size(monkeypatch, tmp_path):
    benchmark = load_benchmark("evaluate")
    monkeypatch.setattr(benchmark, "FEATURES", 16)
    found = benchmark.one(300, benchmark.network(tmp_path))
    assert found["samples"] == 300 and found["metrics"]["fd_random"] > 0
    assert found["sampling_us"] > 0 and found["features_us"] > 0 and found["peak_mib"] > found["above_start_mib"] >= 0


def test_the_sweep_joins_student_and_teacher(monkeypatch, tmp_path):
    """The teacher under two noise levels stands for a student."""
    sweep = load_benchmark("solver_sweep")
    unet = UNet2DModel.from_pretrained(ROOT / "examples" / "teachers" / "digits" / "unet")
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=2)).save_pretrained(tmp_path / "student")
    monkeypatch.setattr(sweep, "SOLVERS", ["DDIMScheduler"])
    asked = ["--student", tmp_path / "student", "--steps", 1, 2, "--seeds", 0, "-n", 20, "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["solver_sweep.py", *map(str, asked)])
    sweep.main()
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [(row["name"], row["steps"]) for row in rows] == [
        ("student", 2), ("DDIM", 1), ("DDIM", 2), ("data-floor", None)
    ]  # fmt: skip
    assert (tmp_path / "picture.png").exists() and "student" in (tmp_path / "table.md").read_text()


def test_a_classifier_is_trained_and_judged_on_other_images(tmp_path):
    """After six epochs on the digits; by chance a tenth would be right."""
    script = load_example("train_extractor")
    data, test = script.halves(script.load(str(DIGITS), "image", "label"))
    assert (len(data[0]), len(test[0])) == (1617, 180)
    model, accuracy = script.train(data, test, width=8, epochs=6, flip=False, seed=0)
    model.save(tmp_path / "digits.safetensors")
    again = Classifier.load(tmp_path / "digits.safetensors")
    with torch.no_grad():
        found = (again(test[0])[1].argmax(1) == test[1]).float().mean().item()
    assert found == accuracy > 0.5
