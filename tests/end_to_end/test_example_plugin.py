"""examples/plugin as its reader uses it: installed with pip, then listed, trained and checked in a new process."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors.torch import load_file

pytestmark = pytest.mark.process
EXAMPLE = ROOT / "examples" / "plugin"

CHILD = """
import contextlib, io, json, sys
from dxmi.cli import main

def printed(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*arguments]) == 0
    return out.getvalue()

found = {"rows": json.loads(printed("plugins", "--check", "--json")), "lines": printed("plugins").splitlines()}
printed("train", sys.argv[1], "--steps", "150", "--out", "rings")
printed("sample", "rings", "-n", "50", "--out", "drawn.safetensors")

import torch
from safetensors.torch import load_model
from dxmi.chains import rollout
from dxmi.testing import check_energy, check_sampler
from dxmi_rings import Drift, Ring

check_energy(Ring, shape=(2,))
check_sampler(Drift, shape=(2,))
found["energies"] = []
for weights in (None, "rings/sampler/model.safetensors"):
    torch.manual_seed(0)
    sampler = Drift(steps=4)
    if weights:
        load_model(sampler, weights)
    ends = rollout(sampler, lambda x, t: torch.zeros(len(x)), (1000, 2))[-1]
    found["energies"].append(float(Ring()(ends).mean()))
json.dump(found, open("found.json", "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a python leaves that has the example installed. It is built from a copy, so the repository stays clean."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "runs"))
    paths = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target, source]
    for arguments in (install, ["-c", CHILD, EXAMPLE / "config.yaml"]):
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        environment["PYTHONPATH"] = paths
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "found.json").read_text())


def test_both_plugins_are_listed(found):
    rows = {(r["group"], r["name"]): r for r in found["rows"] if r["distributions"] == ["dxmi-rings"]}
    assert set(rows) == {("dxmi.energies", "ring"), ("dxmi.samplers", "drift")}
    assert all(row["problem"] is None for row in rows.values())
    assert len([line for line in found["lines"] if "(dxmi-rings)" in line and "BROKEN" not in line]) == 2


def test_it_trains(folder):
    assert {"metrics.jsonl", "run.yaml"} <= {path.name for path in (folder / "rings").iterdir()}
    lines = [json.loads(line) for line in (folder / "rings" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 150 and {"value_loss", "policy_loss"} <= lines[-1].keys()


def test_it_keeps_the_contracts_and_learns(folder, found):
    before, after = found["energies"]
    assert after < before / 2
    assert load_file(folder / "drawn.safetensors")["samples"].shape == (50, 2)


def test_it_stays_short():
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < 60
