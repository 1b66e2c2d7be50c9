"""How these folders were made, with the code of the commit in figures.json, before it was sorted into rooms.

``PYTHONPATH=tests python tests/data/runs/make.py``, in a clone of that commit with these files in it,
since it needs ``conftest.interrupted`` of then. ``make.py record`` records figures of the folders that there are.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
import yaml
from conftest import interrupted
from losses import DIGITS, ROOT, machine, stamp
from runs_from_before import CASES, EXTRACTOR, PLACE, RUNS, do, exchange

from dxmi.cli import main

UNET = {"block_out_channels": [4], "layers_per_block": 1, "norm_num_groups": 2, "add_attention": False}
UNET |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
PIXELS = {"path": str(DIGITS), "batch_size": 8}
RING = {"density": {"name": "gaussian_mixture", "preset": "eight_gaussians"}, "batch_size": 32}
CONV = {"name": "conv", "width": 2, "blocks": 1, "activation": "silu"}
MLP = {"name": "mlp", "width": 8}
GMM = {"name": "gaussian_mixture", "preset": "gmm9"}
SHORT = {"steps": 6, "every": {"log": 1, "samples": 3, "checkpoint": 3}, "tracker": None, "compare_steps": []}
SHORT |= {"paths": 40, "long_chain": 2}
DENSITIES = [{"name": "densities", "samples": 40}]

PRETRAINED = {
    "ddpm": {"data": PIXELS, "unet": UNET},
    "multi_noise": {"data": PIXELS, "unet": UNET, "objective": "multi_noise", "noise": {"num_train_timesteps": 4}},
    "score": {"data": RING, "score": {"width": 8, "depth": 2}, "objective": "sliced"},
    "energy": {"data": RING, "energy": MLP, "objective": "denoising", "sigma": 0.3},
}


def diffusion(teacher):
    scheduler = {"name": "ancestral", "steps": 2, "nodes": "trailing"}
    return {"name": "diffusion", "teacher": str(teacher), "scheduler": scheduler}


def trained(work):
    """The configs of the runs, whose teachers and first weights are in ``work``."""
    images = {
        "data": PIXELS,
        "energy": CONV,
        "sampler": diffusion(work / "ddpm"),
        "game": {"warmup": 1},
        "evaluators": [{"name": "fidelity", "extractor": str(EXTRACTOR), "metrics": ["fid"], "samples": 32}],
        "proxy": {"every": 2, "samples": 16},
    }
    value = {"value": CONV | {"time": True}, "game": {"warmup": 1, "time_cost": None}, "evaluators": [], "proxy": None}
    vectors = {
        "data": RING,
        "energy": MLP | {"prior": 9.0},
        "value": MLP | {"prior": 9.0, "time": True},
        "sampler": {"name": "vgs", "steps": 4, "chain": "ve", "first": 1.0, "last": 0.05, "start": 2.0},
        "game": {"warmup": 2, "noised": 0.5},
        "evaluators": DENSITIES,
    }
    pcd = {
        "data": RING,
        "energy": MLP,
        "energy_weights": str(work / "energy"),
        "sampler": {"name": "langevin", "steps": 3, "step_size": 0.01},
        "game": {"start": "chains", "chains": 64, "reinit": 0.1, "gamma": 0.1},
        "evaluators": DENSITIES,
    }
    density = {
        "batch_size": 16,
        "energy": GMM,
        "sampler": {"name": "vgs", "steps": 5, "chain": "ve", "first": 4.0, "last": 0.05, "start": 7.0},
        "value": {"name": "informed", "energy": GMM, "steps": 5, "start": 7.0, "width": 8, "depth": 2},
        "game": {"warmup": 0, "target": 0.8},
        "evaluators": DENSITIES,
    }
    mala, smc = {"name": "mala", "steps": 2, "step_size": 0.1}, {"name": "smc", "steps": 5, "scale": 7.0}
    density["sampler"]["covariance"] = "posterior"
    density["replay"] = {"learn": "td", "fill": smc, "refine": mala, "every": 2, "size": 64, "batch": 16}
    return {
        "images": images,
        "images_value": {**images, **value, "sampler": diffusion(work / "multi_noise")},
        "vectors": vectors,
        "policy": vectors
        | {
            "sampler": {"name": "policy", "shape": [2], "steps": 3, "width": 8, "depth": 2},
            "game": {"noised": 0.5, "warmup": 0, "time_cost": None},
        },
        "digits_vgs": {
            "data": PIXELS,
            "energy": CONV,
            "value": CONV | {"time": True},
            "sampler": {"name": "vgs", "steps": 3},
            "game": {"warmup": 1},
        },
        "density": density,
        "pcd": pcd,
        "halfway_images": images,
        "halfway_vectors": vectors,
        "halfway_density": density,
        "halfway_pcd": pcd,
    }


CHAINS = {"energy": GMM, "sampler": {"name": "mala", "steps": 60, "step_size": 0.3, "start": 3.0}, "chains": 16}


def make(work):
    """All folders, in the order in which they need each other."""
    for name, config in PRETRAINED.items():
        path = written(config | {"steps": 8, "warmup": 2, "lr": 1e-2, "ema": 0.5}, work / f"{name}.yaml")
        assert main(["pretrain", path, "--out", str(work / name)]) == 0
    for name, config in trained(work).items():
        path, half = written(SHORT | config, work / "config.yaml"), name.startswith("halfway")
        with interrupted(5 if half else -1):  # two rounds after a checkpoint
            assert main(["train", path, "--out", str(work / name)]) == half
    assert main(["sample", written(CHAINS, work / "config.yaml"), "--out", str(work / "chains")]) == 0
    judge = ["--reference", str(DIGITS), "--extractor", str(EXTRACTOR), "--metrics", "fid", "--floor", "none"]
    brief = ["-n", "32", "--seeds", "0", "--out", str(work / "report")]
    assert main(["evaluate", str(work / "ddpm"), *judge, *brief]) == 0


def written(config, path):
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def keep(name, work):
    """Copy a folder, or a file, without pictures, most checkpoints of finished runs and this machine's paths."""
    target = RUNS / name
    shutil.rmtree(target, ignore_errors=True)
    (shutil.copytree if (work / name).is_dir() else shutil.copy)(work / name, target)
    for picture in target.rglob("*.png"):
        picture.unlink()
    if (target / "run.yaml").exists():
        shutil.rmtree(target / "samples", ignore_errors=True)  # held pictures alone
    if name != "images" and not name.startswith("halfway"):
        shutil.rmtree(target / "checkpoints", ignore_errors=True)
    exchange(target, str(work), f"{PLACE}/{RUNS.relative_to(ROOT)}")
    exchange(target, str(ROOT), PLACE)


def record():
    """What comes of each case, with the code of today."""
    found = {"resumed": {}, "figures": {}}
    for name, does in CASES:
        with tempfile.TemporaryDirectory() as folder:
            kind = "resumed" if does.__name__ == "resumed" else "figures"
            found[kind].setdefault(name, {})[does.__name__] = do(name, does, Path(folder))
    for kind, figures in found.items():
        cases = {
            name: ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in told.items())
            for name, told in figures.items()
        }
        text = ",\n".join(f"{json.dumps(name)}: {{\n{told}\n}}" for name, told in cases.items())
        head = f'"machine": {json.dumps(machine())},\n"stamp": {json.dumps(stamp())}'
        (RUNS / f"{kind}.json").write_text(f'{{\n{head},\n"{kind}": {{\n{text}\n}}\n}}\n')


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, mock.patch("datasets.config.HF_DATASETS_CACHE", Path(folder) / "hf"):
        if sys.argv[1:] != ["record"]:
            make(Path(folder))
            for name in (*dict(CASES), *(f"{name}.yaml" for name in PRETRAINED)):
                keep(name, Path(folder))
        record()
