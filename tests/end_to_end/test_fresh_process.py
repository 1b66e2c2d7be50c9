"""What a user types in a process of its own, which has imported nothing yet."""

import subprocess
import sys

import pytest
from conftest import tiny_unet
from diffusers import DDPMPipeline
from dxmi_plugins.schedulers.annealed_langevin import AnnealedLangevinScheduler

from dxmi.cli import main

pytestmark = pytest.mark.process

# Classes that saved pipelines name are found by whoever loads them: those of ours, then the code in a run's folder.
CHILD = """
import sys
from dxmi.cli import main
annealed, run, out = sys.argv[1:]
assert main(["sample", annealed, "-n", "2", "--steps", "3", "--out", out + "/annealed.png"]) == 0
assert main(["sample", run, "-n", "2", "--out", out + "/run.png"]) == 0
snippet = open(run + "/pipeline/README.md").read().split("```python\\n")[1].split("```")[0]
exec(snippet.replace("path/of/this/folder", run + "/pipeline"))
assert len(images) == 16
"""


def test_sample_and_the_model_cards_snippet_work_in_a_fresh_process(config, write, tmp_path):
    scheduler = AnnealedLangevinScheduler(sigma_max=2.0, sigma_min=0.1, num_train_timesteps=4)
    DDPMPipeline(unet=tiny_unet(), scheduler=scheduler).save_pretrained(tmp_path / "annealed")
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 0
    command = [sys.executable, "-c", CHILD, tmp_path / "annealed", tmp_path / "run", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all((tmp_path / name).stat().st_size > 100 for name in ("annealed.png", "run.png"))


def test_accelerate_launches_the_module(config, write, tmp_path):
    """For --cpu the launcher of accelerate 1.15 starts one process, whatever --num_processes says."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    arguments = ["-m", "dxmi", "train", write(config), "--out", tmp_path / "run", "--steps", "1"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "pipeline" / "model_index.json").exists()
