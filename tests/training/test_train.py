"""Whole runs on a tiny teacher: what they leave, that they repeat and resume, what is refused."""

import json
import warnings

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from conftest import EXTRACTOR, interrupted, save_teacher, tiny_unet
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from PIL import Image
from runs_from_before import bring
from safetensors.torch import load_file
from torch import Generator

from dxmi.chains import SamplerDraw
from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig
from dxmi.game.algorithm import DxMI
from dxmi.runs import load_energy
from dxmi.training.finish import finish
from dxmi.training.session import Session
from dxmi.training.train import play, start, train


def run(config, out, **options):
    return train(Checked(TrainConfig, config), out, **options).folder


def weights(folder):
    return load_file(folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_leaves_its_products(config, tmp_path, capsys):
    config["evaluators"] = [{"name": "fidelity", "extractor": str(EXTRACTOR), "metrics": ["fid", "prc"], "samples": 40}]
    config["compare_steps"] = [3]
    config["tracker"] = "tensorboard"
    out = run(config, tmp_path / "run")
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert yaml.safe_load((out / "run.yaml").read_text()) == {"format": 1, **Checked(TrainConfig, config).resolved}
    assert sorted(p.name for p in (out / "samples").iterdir()) == ["step-000002.png", "step-000004.png"]
    assert (out / "before_after.png").stat().st_size > 1000
    assert list(out.glob("logs/dxmi/**/events*"))
    assert "/" not in json.loads((out / "pipeline" / "unet" / "config.json").read_text()).get("_name_or_path", "")
    evaluation = json.loads((out / "evaluation.json").read_text())
    rivals = ["teacher-ddim", "teacher-dpmsolver++", "teacher-unipc"]
    assert [(row["name"], row["steps"]) for row in evaluation["rows"]] == [
        ("student", 2),
        *((name, steps) for steps in (2, 3) for name in rivals),
        ("data-floor", None),
    ]
    assert all(row["metrics"]["fd_digits"] > 0 and row["samples"] == 40 for row in evaluation["rows"])
    stamp = evaluation["stamp"]
    assert stamp["reference"]["size"] == 1797 and stamp["samples"] == 40 and stamp["prompts"] == []
    card = (out / "pipeline" / "README.md").read_text()
    assert "fd_digits_0.04k" in card and "num_inference_steps=2" in card
    assert "teacher-unipc" in capsys.readouterr().out


def test_an_energy_learns_against_a_chain_that_does_not(config, tmp_path, capsys):
    config |= {"sampler": {"name": "langevin", "steps": 3, "step_size": 0.01}, "compare_steps": [], "long_chain": 2}
    config["evaluators"] = [{"name": "fidelity", "extractor": str(EXTRACTOR), "metrics": ["fid"], "samples": 16}]
    for kind in ("noise", "data", "chains"):
        config["game"] = {"start": kind, "chains": 8}
        out = run(config, tmp_path / kind)
        assert load_energy(out / "energy")(torch.zeros(2, 1, 8, 8)).shape == (2,)
        assert not (out / "pipeline").exists() and (out / "samples" / "step-000004.png").exists()
        assert [row["name"] for row in json.loads((out / "evaluation.json").read_text())["rows"]] == [
            "chain",
            "long chain",
            "data-floor",
        ]


def test_a_log_file_gets_a_line_for_each_logged_round(config, tmp_path, capsys):
    run(config, tmp_path / "run")
    assert "round 4/4: " in capsys.readouterr().err


def test_exported_pipeline_draws_the_averaged_sampler(config, tmp_path):
    session = Session(Checked(TrainConfig, config), tmp_path / "run")
    start(session, None, resume=False)
    play(session, None)
    finish(session, None)
    own = SamplerDraw(session.average(), (1, 8, 8))(5, 2, Generator().manual_seed(3))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline", trust_remote_code=True)
    for steps in ({}, {"num_inference_steps": 2}):
        drawn = pipeline(batch_size=5, generator=Generator().manual_seed(3), output_type="np", **steps).images
        np.testing.assert_allclose(drawn, (own / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), atol=1e-5)


@pytest.fixture
def bfloat16(monkeypatch):
    """A process that accelerate has started with mixed precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_exported_pipeline_keeps_its_promise_after_mixed_precision(config, tmp_path, bfloat16):
    """The averaged sampler is copied before accelerate wraps forward, so both run in float32."""
    session = Session(Checked(TrainConfig, config), tmp_path / "run")
    start(session, None, resume=False)
    play(session, None)
    finish(session, None)
    assert session.accelerator.mixed_precision == "bf16"
    own = SamplerDraw(session.average(), (1, 8, 8))(5, 2, Generator().manual_seed(3))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline", trust_remote_code=True)
    drawn = pipeline(batch_size=5, generator=Generator().manual_seed(3), output_type="np").images
    np.testing.assert_allclose(drawn, (own / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_averaged_weights_are_exported_not_the_raw_ones(config, tmp_path):
    config |= {"ema": 0.5, "lr": {"sampler": 1e-3}}
    session = Session(Checked(TrainConfig, config), tmp_path / "run")
    start(session, None, resume=False)
    play(session, None)
    finish(session, None)
    exported = weights(tmp_path / "run")
    averaged = session.average().network.state_dict()
    raw = session.run.sampler.network.state_dict()
    assert same(exported, averaged) and not torch.equal(exported["conv_in.weight"], raw["conv_in.weight"])


def test_equal_seeds_give_equal_metrics_and_others_do_not(config, tmp_path):
    first, second = run(config, tmp_path / "a"), run(config, tmp_path / "b")
    third = run(config | {"seed": 1}, tmp_path / "c")
    texts = [(out / "metrics.jsonl").read_text() for out in (first, second, third)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("value", [None, {"name": "conv", "width": 4, "blocks": 2, "time": True}])
def test_a_killed_run_resumes_bit_for_bit(value, config, tmp_path):
    config |= {"steps": 7, "value": value, "data": {**config["data"], "flip": True}}
    config["game"] = {"warmup": 1, "time_cost": None}
    whole = run(config, tmp_path / "whole")
    with interrupted(5), pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "half")
    assert [p.name for p in (tmp_path / "half" / "checkpoints").iterdir()] == ["step-000004"]
    resumed = run(config, tmp_path / "half", resume=True)
    assert same(weights(whole), weights(resumed))
    assert same(load_file(whole / "energy" / "model.safetensors"), load_file(resumed / "energy" / "model.safetensors"))
    assert (whole / "metrics.jsonl").read_text() == (resumed / "metrics.jsonl").read_text()
    scheduler = "pipeline/scheduler/scheduler_config.json"
    assert (whole / scheduler).read_text() == (resumed / scheduler).read_text()


def test_resume_without_a_checkpoint_starts_over(config, tmp_path, monkeypatch):
    whole = run(config, tmp_path / "whole")
    monkeypatch.setattr(DxMI, "round", lambda self, *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(config, tmp_path / "half")
    monkeypatch.undo()
    assert same(weights(whole), weights(run(config, tmp_path / "half", resume=True)))


def test_saved_energy_scores_images(tmp_path, capsys):
    out = bring("images", tmp_path / "kept")
    (tmp_path / "images").mkdir()
    for k, level in enumerate((0, 255)):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / "images" / f"{k}.png")
    assert main(["score", str(out), str(tmp_path / "images"), "--json", str(tmp_path / "s.json")]) == 0
    energy = load_energy(out / "energy")
    expected = [energy(torch.full((1, 1, 8, 8), level)).item() for level in (-1.0, 1.0)]
    assert json.loads((tmp_path / "s.json").read_text()) == pytest.approx(expected, rel=1e-5)
    assert main(["sample", str(out), "-n", "3", "--out", str(tmp_path / "g.png")]) == 0
    assert Image.open(tmp_path / "g.png").width > 3 * 64
    assert main(["sample", str(out), "-n", "3", "--steps", "1", "--out", str(tmp_path / "h.png")]) == 2
    assert "--steps: this student was trained for 2" in capsys.readouterr().err and not (tmp_path / "h.png").exists()


def image_folder(folder, shape, count=3):
    folder.mkdir()
    for k in range(count):
        Image.fromarray(np.zeros(shape, np.uint8)).save(folder / f"{k}.png")
    return str(folder)


def test_bad_input_is_one_line_and_writes_nothing(config, write, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    save_teacher(tmp_path / "flow", prediction_type="epsilon")
    index = tmp_path / "flow" / "scheduler" / "scheduler_config.json"
    index.write_text(index.read_text().replace('"epsilon"', '"flow"'))
    DDPMScheduler().save_pretrained(tmp_path / "half")
    broken = save_teacher(tmp_path / "broken")
    (broken / "unet" / "config.json").unlink()
    small, colour = image_folder(tmp_path / "small", (4, 4)), image_folder(tmp_path / "colour", (8, 8, 3))
    (tmp_path / "corrupt").mkdir()
    image_folder(tmp_path / "corrupt" / "images", (8, 8))
    corrupt = tmp_path / "corrupt" / "images"
    (corrupt / "1.png").write_bytes(b"no image")
    nothing = tmp_path / "nothing.parquet"
    Dataset.from_dict({"image": []}, features=Features({"image": ImageFeature()})).to_parquet(nothing)
    unet = UNet2DModel.from_config(tiny_unet().config | {"out_channels": 3})
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler()).save_pretrained(tmp_path / "channels")
    cases = [
        (["--sampler.teacher", str(tmp_path / "nowhere")], "teacher: there is no folder"),
        (["--sampler.teacher", str(tmp_path / "half")], "is not a diffusers pipeline"),
        (["--sampler.teacher", str(broken)], "teacher: "),
        (["--sampler.teacher", "nobody/nothing"], "teacher: nobody/nothing could not be loaded"),
        (["--sampler.teacher", str(tmp_path / "flow")], "predicts 'flow'; supported are epsilon"),
        (["--sampler.scheduler.steps", "0"], "steps: 0 steps cannot make a sample"),
        (["--sampler.scheduler.steps", "1001"], "steps: 1001 is not between 1 and the teacher's 1000"),
        (["--sampler.scheduler.nodes", "odd"], "nodes: 'odd'"),
        (["--data.path", small], "set data.size: 8"),
        (["--data.path", colour], "(3, 8, 8), the teacher draws (1, 8, 8)"),
        (["--data.path", str(tmp_path / "empty")], "data.path"),
        (["--data.path", str(tmp_path / "none.parquet")], "data.path"),
        (["--data.column", "picture"], "data.column"),
        (["--data.path", str(nothing)], "data.path: "),
        (["--data.path", str(corrupt)], "data.path: row 1 of "),
        (["--betas", "[0.0, 1.5]"], "betas: "),
        (["--optimizer", "LBFGS", "--betas", "null"], "optimizer: torch.optim.LBFGS refuses"),
        (["--clip.sampler", "-1"], "clip.sampler: -1"),
        (["--sampler.teacher", str(tmp_path / "channels")], "makes 3 channels of 1"),
        (["--data", "null"], "data: the energy is a network"),
        (["--optimizer", "Adamm"], "optimizer"),
        (["--tracker", "wand"], "tracker: 'wand'"),
        (["--value", "mlpp"], "value: no plugin 'mlpp'"),
        (["--evaluators", "[{name: fidelity, extractor: x.safetensors}]"], "extractor: there is no file"),
        (["--steps", "0"], "steps"),
        (["--every.log", "0"], "every.log"),
        (["--draw_batch", "0"], "draw_batch: 0 is not positive"),
        (["--data.batch_size", "0"], "data.batch_size"),
        (["--ema", "1.5"], "ema"),
        (["--game.avr", "-1"], "game.avr"),
        (["--resume"], "--resume"),
    ]
    path = str(write(config))
    capsys.readouterr()  # datasets shows how it writes
    for arguments, says in cases:
        assert main(["train", path, "--out", str(tmp_path / "run"), *arguments]) == 2, arguments
        complaint = capsys.readouterr().err
        assert says in complaint and complaint.count("\n") == 1, complaint
        assert not (tmp_path / "run").exists(), arguments


def test_drawing_fits_large_networks_and_warnings_are_lines(config, write, tmp_path, monkeypatch, capsys):
    """No more than four at once for figures, grids and before_after.png; floor and samples say a notice once."""
    seen, forward = [], UNet2DModel.forward

    def spy(self, x, *given, **options):
        seen.append(len(x))
        return forward(self, x, *given, **options)

    monkeypatch.setattr(UNet2DModel, "forward", spy)
    config["data"]["batch_size"] = 3
    config |= {"draw_batch": 4, "steps": 2, "compare_steps": []}
    metrics = {"metrics": ["fid", "accuracy"], "extractor": str(EXTRACTOR), "samples": 10}
    config["evaluators"] = [{"name": "fidelity", **metrics}]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 0
    assert max(seen) == 4 and (tmp_path / "run" / "before_after.png").exists()
    said = " ".join(capsys.readouterr().err.split())
    told = "note: metrics: accuracy is left out"
    assert said.count(f"data-floor: {told}") == 1 and said.count(told) == 2 and "UserWarning" not in said


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_processes_that_accelerate_does_not_join_are_refused(command, config, write, tmp_path, monkeypatch, capsys):
    """As torchrun leaves them on a machine without a GPU: each would be a main process of its own."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    unet = {"block_out_channels": [8], "norm_num_groups": 4, "down_block_types": ["DownBlock2D"]}
    unet |= {"up_block_types": ["UpBlock2D"], "add_attention": False}
    config = config if command == "train" else {"data": config["data"], "unet": unet, "steps": 1}
    assert main([command, str(write(config)), "--out", str(tmp_path / "run")]) == 2
    complaint = capsys.readouterr().err
    assert "WORLD_SIZE: 2 processes were started" in complaint and "ACCELERATE_USE_CPU=true" in complaint
    assert complaint.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_kept(tmp_path, capsys):
    out = bring("images", tmp_path)
    path = str(out / "run.yaml")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert main(["train", path, "--out", str(out)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["train", path, "--out", str(out), "--resume", "--lr.energy", "0.5"]) == 2
    assert "lr.energy: 0.0003 -> 0.5" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_loss_that_is_not_finite_fails_with_status_1(config, write, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", str(write(config)), "--out", str(out), "--lr.energy", "1e30", "--game.warmup", "4"]) == 1
    assert "not finite" in capsys.readouterr().err and not (out / "pipeline").exists()
