"""Small teachers and configs that the tests share. Nothing here reaches a network.

Libraries that take seconds to import are imported by whoever needs them: the process that hands out the tests does not.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: torch shall not take the others' too
    os.environ["OMP_NUM_THREADS"] = "1"

import importlib.util
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "data" / "digits.parquet"
EXTRACTOR = ROOT / "examples" / "extractors" / "digits.safetensors"


def pytest_collection_modifyitems(items):
    """What lies in training/ and end_to_end/ plays whole runs, and comes first: no worker starts a long file last."""
    for item in items:
        if item.path.parent.name in ("training", "end_to_end"):
            item.add_marker("run")
    items.sort(key=lambda item: "run" not in item.keywords)


@pytest.fixture(scope="session", autouse=True)
def torch_home(tmp_path_factory):
    """Evaluators keep moments of references in torch's home: not in that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield


@pytest.fixture
def own_torch_home(tmp_path, monkeypatch):
    """For a test that must find nothing in the cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The shipped digits, as data."""
    from dxmi.config import DataConfig
    from dxmi.data import load_images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        return load_images(DataConfig(path=str(DIGITS)))


def load_benchmark(name):
    """A script of examples/benchmarks as a module."""
    return load_example(f"benchmarks/{name}")


def load_example(name):
    """A script of examples as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).name, ROOT / "examples" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@contextmanager
def interrupted(rounds):
    """Inside, whoever waits presses Ctrl-C after so many rounds."""
    from dxmi.game.algorithm import DxMI

    play = DxMI.round

    def stop(self, *given):
        if self.rounds == rounds:
            raise KeyboardInterrupt
        return play(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DxMI, "round", stop)
        yield


def tiny_unet(channels=1, size=8, **options):
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        **options,
    )


def save_teacher(folder, channels=1, size=8, **noise):
    """A randomly initialised DDPMPipeline: what a test needs of a teacher in milliseconds."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler

    torch.manual_seed(0)
    DDPMPipeline(unet=tiny_unet(channels, size), scheduler=DDPMScheduler(**noise)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


def image_run(teacher):
    """A run of four rounds that touches everything: samples, checkpoint, evaluation."""
    return {
        "steps": 4,
        "data": {"path": str(DIGITS), "batch_size": 8},
        "energy": {"name": "conv", "width": 4, "blocks": 2},
        "sampler": {
            "name": "diffusion",
            "teacher": str(teacher),
            "scheduler": {"name": "ancestral", "steps": 2, "nodes": "quadratic"},
        },
        "game": {"warmup": 1},
        "every": {"log": 1, "samples": 2, "checkpoint": 2},
        "tracker": None,
        "evaluators": [],
    }


@pytest.fixture
def config(teacher):
    return image_run(teacher)


def replay_run():
    """A run on a known density that fills, refines and denoises, for a second."""
    target = {"name": "gaussian_mixture", "preset": "eight_gaussians"}
    return {
        "energy": target,
        "sampler": {"name": "vgs", "steps": 4, "chain": "ve", "first": 2.0, "last": 0.02, "start": 2.5},
        "value": {"name": "informed", "energy": target, "steps": 4, "start": 2.5, "width": 16},
        "replay": {
            "learn": "denoise",
            "fill": {"name": "smc", "steps": 10, "scale": 2.0},
            "refine": {"name": "mala", "steps": 5, "step_size": 0.1},
            "size": 200,
            "every": 2,
        },
        "game": {"warmup": 0},
        "batch_size": 16,
        "steps": 4,
        "paths": 100,
        "decay": "cosine",
        "tracker": None,
        "every": {"log": 1, "samples": 4, "checkpoint": 2},
    }


@pytest.fixture
def write(tmp_path):
    """Write a config to a file and return its path."""

    def write(config, name="config.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(config))
        return path

    return write
