"""Losses of whole runs, to see that a change of the code moved no number.

``PYTHONPATH=tests python tests/losses.py [FILE]`` records them anew.
"""

import json
import math
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pyarrow
import torch
import yaml
from pyarrow import parquet
from tiny import KINDS, tiny

from dxmi.cli import main

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DIGITS = ROOT / "examples" / "data" / "digits.parquet"
RECORD = TESTS / "data" / "losses.json"
ROUNDS = 30
CONFIGS = ["digits", "gmm25_vgs", "eight_gaussians_dxmi", "eight_gaussians_pcd"]
FILES = {"digits": "digits_td"}  # what is called otherwise since
NAMES = [*CONFIGS, *(f"tiny_{kind}" for kind in KINDS)]
# On another machine some of the chains that fill its replay accept otherwise, and all losses are of other states.
LOOSE = {"gmm25_vgs": 0.15}
# Figures and pictures come after the last round and are in no loss: as little of them as can be.
BRIEF = {
    "evaluators": [],
    "tracker": None,
    "compare_steps": [],
    "paths": 2,
    "long_chain": 1,
    "every": {"log": 1, "samples": 1_000_000, "checkpoint": 1_000_000},
}


def play(name, rounds=ROUNDS):
    """The losses of a run's first rounds: a line of metrics.jsonl each, from one thread, since sums depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # datasets keeps a copy of what it reads, which should not stay
        with tempfile.TemporaryDirectory() as folder, mock.patch("datasets.config.HF_DATASETS_CACHE", Path(folder)):
            config = (
                ROOT / "configs" / f"{FILES.get(name, name)}.yaml" if name in CONFIGS else write(name, Path(folder))
            )
            given = [f"--{key}={json.dumps(value)}" for key, value in {**BRIEF, "steps": rounds}.items()]
            out = Path(folder) / "run"
            status = main(["train", str(config), "--out", str(out), *given])
            assert status == 0, f"{name} ends with status {status}"
            return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    finally:
        torch.set_num_threads(threads)


def write(name, folder):
    """A config of a tiny run with a teacher of this kind, and the teacher."""
    kind = name.removeprefix("tiny_")
    energy = {"name": "conv", "width": 4, "blocks": 2}
    scheduler = {"name": "ancestral", "steps": 3}
    sampler = {"name": "diffusion", "teacher": str(tiny(kind, folder / "teacher")), "scheduler": scheduler}
    config = {"data": {"path": str(DIGITS), "batch_size": 8}, "energy": energy, "sampler": sampler}
    config |= {"game": {"warmup": 2}, "lr": {"energy": 1e-3, "sampler": 1e-3, "std": 1e-2}}
    if kind in ("classes", "dit"):
        energy["classes"], config["data"]["label"] = 10, "label"
    if kind in ("sd", "sdxl", "sd3"):
        energy["text"], sampler["prompts"] = True, ["a seven", "zero"]
        config["data"] |= {"path": str(captioned(folder / "digits.parquet")), "caption": "text"}
    # and some options that no config of the above has
    if kind == "edm":
        scheduler["nodes"] = "karras"
    if kind == "ddpm_variance":
        config["value"] = energy | {"time": True}
        config["game"]["time_cost"] = None
    if kind == "sd":
        sampler["lora"] = {"rank": 2}
    if kind == "sdxl":  # without guidance the student starts as what it imitates, and learns from rounding alone
        config["game"]["imitate"], sampler["guidance"] = 0.1, 2.0
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def captioned(path):
    """The first of the shipped digits, with captions."""
    table = parquet.read_table(DIGITS).slice(0, 100)
    texts = [f"digit {'abcdefghij'[label]}" for label in table["label"].to_pylist()]
    parquet.write_table(table.append_column("text", pyarrow.array(texts)), path)
    return path


def machine():
    """What the last bits of a sum depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu_capability": capability, "processor": processor()}


def processor():
    """Name, family, model and stepping, where Linux tells them: a name alone may be shared by generations."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor()
    told = dict(line.replace("\t", "").split(":", 1) for line in first.splitlines() if ":" in line)
    return ", ".join(told[key].strip() for key in ("model name", "cpu family", "model", "stepping") if key in told)


def stamp():
    """Where a record comes from."""
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    packages = {name: version(name) for name in ("accelerate", "diffusers", "transformers")}
    return {"commit": commit, "python": platform.python_version(), "threads": 1, **packages}


def compare(found, recorded, made_on, tolerance=1e-3):
    """Bit for bit on the machine of the record; on another the first three rounds, before small differences grow."""
    if machine() == made_on:
        assert found == recorded
        return
    assert len(found) == len(recorded)
    for line, wanted in zip(found[:3], recorded[:3], strict=True):
        agree(line, wanted, tolerance, f"round {wanted['step']}")


def agree(found, wanted, tolerance=1e-3, where=""):
    """Numbers in lists and mappings are equal within a relative tolerance; all else is the same."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            agree(found[key], wanted[key], tolerance, f"{where} {key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for k, (one, other) in enumerate(zip(found, wanted, strict=True)):
            agree(one, other, tolerance, f"{where} {k}")
    elif isinstance(wanted, float):  # null, which stands for what is not finite, is none
        near = found is not None and math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance / 100)
        assert near, (where, found, wanted)
    else:
        assert found == wanted, (where, found, wanted)


def dump(losses):
    """A record of several runs as JSON, a line for each round, so that a diff tells which of them moved."""
    rounds = {name: ",\n".join(json.dumps(line) for line in lines) for name, lines in losses.items()}
    runs = ",\n".join(f"{json.dumps(name)}: [\n{lines}\n]" for name, lines in rounds.items())
    return f'{{\n"machine": {json.dumps(machine())},\n"stamp": {json.dumps(stamp())},\n"losses": {{\n{runs}\n}}\n}}\n'


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD
    target.write_text(dump({name: play(name) for name in NAMES}))
