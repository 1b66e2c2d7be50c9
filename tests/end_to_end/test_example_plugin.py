"""examples/plugin as its reader uses it: installed with pip, listed, trained and checked, in processes of its own."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors.torch import load_file

EXAMPLE = ROOT / "examples" / "plugin"

LEARNED = """
import sys, torch
from safetensors.torch import load_model
from dxmi.chains import rollout
from dxmi.testing import check_energy, check_sampler
from dxmi_rings import Drift, Ring

check_energy(Ring, shape=(2,))
check_sampler(Drift, shape=(2,))
for weights in (None, sys.argv[1]):
    torch.manual_seed(0)
    sampler = Drift(steps=4)
    if weights:
        load_model(sampler, weights)
    print(float(Ring()(rollout(sampler, lambda x, t: torch.zeros(len(x)), (1000, 2))[-1]).mean()))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs a python that has the example installed. It is built from a copy, so the repository stays clean."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "runs"))

    def run(*arguments, **environment):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target, source)
    paths = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return lambda *arguments: run(*arguments, PYTHONPATH=os.pathsep.join(paths))


@pytest.fixture(scope="module")
def trained(python, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "rings"
    python("-m", "dxmi", "train", EXAMPLE / "config.yaml", "--steps", "150", "--out", out)
    return out


def test_both_plugins_are_listed(python):
    rows = json.loads(python("-m", "dxmi", "plugins", "--check", "--json"))
    found = {(r["group"], r["name"]): r for r in rows if r["distributions"] == ["dxmi-rings"]}
    assert set(found) == {("dxmi.energies", "ring"), ("dxmi.samplers", "drift")}
    assert all(row["problem"] is None for row in found.values())
    lines = python("-m", "dxmi", "plugins").splitlines()
    assert len([line for line in lines if "(dxmi-rings)" in line and "BROKEN" not in line]) == 2


def test_it_trains(trained):
    assert {"metrics.jsonl", "run.yaml"} <= {path.name for path in trained.iterdir()}
    assert (trained / "sampler" / "model.safetensors").is_file()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 150 and {"value_loss", "policy_loss"} <= lines[-1].keys()


def test_it_keeps_the_contracts_and_learns(python, trained):
    before, after = map(float, python("-c", LEARNED, trained / "sampler" / "model.safetensors").split())
    assert after < before / 2
    drawn = trained.parent / "drawn.safetensors"
    python("-m", "dxmi", "sample", trained, "-n", "50", "--out", drawn)
    assert load_file(drawn)["samples"].shape == (50, 2)


def test_it_stays_short():
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < 60
