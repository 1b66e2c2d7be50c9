"""Two processes, started once: they train to equal weights, keep states of their own, measure what one measures."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from both_processes import evaluation
from conftest import ROOT, image_run, replay_run
from contrast_runs import contrast_run
from safetensors.torch import load_file
from tiny import tiny

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def place(teacher, tmp_path_factory):
    """The folder that both processes have left. (accelerate launch --cpu starts one unless mpirun is there.)"""
    folder, config = tmp_path_factory.mktemp("both"), image_run(teacher)
    config["game"] |= {"loss": "nce", "r1": 0.1, "imitate": 1.0}  # gradient penalty and imitation pass by DDP
    config["sampler"]["weights"] = "random"  # so that there is something to imitate
    runs = {"images": config, "replay": replay_run(), "contrast": contrast_run(teacher)}
    runs["contrast"]["game"]["imitate"] = 1.0
    runs["contrast"]["sampler"]["weights"] = "random"
    for name, run in runs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(run))
    tiny("ddpm", folder / "teacher")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    cpu = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    script = ROOT / "tests" / "both_processes.py"
    done = subprocess.run([*launch, script, folder], capture_output=True, text=True, env=cpu)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def both(place):
    found = [torch.load(place / f"{k}.pt", weights_only=False) for k in (0, 1)]
    assert [one["processes"] for one in found] == [2, 2]
    return found


def test_two_processes_end_with_equal_weights(both, place):
    first, second = (one["images"] for one in both)
    assert len(first) > 20 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert (place / "images" / "pipeline" / "model_index.json").exists()


def test_two_processes_learn_the_same_by_contrast_from_paths_of_their_own(both):
    """Energy and sampler at all nodes, warm start, kept paths, distillation and imitation pass by DDP."""
    (first, paths), (second, others) = (one["contrast"] for one in both)
    assert len(first) > 40 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert paths.shape == others.shape and not torch.equal(paths, others)


def test_two_processes_learn_the_same_from_states_of_their_own(both):
    """Each keeps its states in checkpoints too; value and start get the mean of both gradients."""
    (first, kept, again), (second, other, also) = (one["replay"] for one in both)
    assert len(first) > 10 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert kept.shape == other.shape and not torch.equal(kept, other)
    assert torch.equal(kept, again) and torch.equal(other, also)


def test_two_processes_measure_what_one_measures(both, place):
    """The whole of an evaluation: the same images in the same files, the same moments, the same figures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = evaluation(place / "teacher", place / "one")
    finally:
        torch.set_num_threads(threads)
    files = sorted((place / "one" / "samples").rglob("*.safetensors"))
    assert len(files) == 2
    for file in files:
        other = place / "two" / file.relative_to(place / "one")
        assert torch.equal(load_file(file)["samples"], load_file(other)["samples"])
    for found in (one_of["evaluation"] for one_of in both):
        assert torch.equal(found["samples"], one["samples"])
        torch.testing.assert_close(found["mean"], one["mean"], rtol=1e-12, atol=0)
        assert (found["covariance"] - one["covariance"]).abs().max() < 1e-12 * one["covariance"].abs().max()
        assert found["rows"][0]["metrics"] == pytest.approx(one["rows"][0]["metrics"], rel=1e-9)
