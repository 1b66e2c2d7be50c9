"""What a run's folder is: one class says it of each of the runs of before, and of what is no run."""

import json

import pytest
import torch
import yaml
from runs_from_before import bring
from safetensors.torch import load_file

import dxmi
from dxmi import ConfigError, Run

KINDS = {
    "images": "training",
    "images_value": "training",
    "density": "density",
    "digits_vgs": "images",
    "policy": "vectors",
    "vectors": "vectors",
    "pcd": "vectors",
    "chains": "chains",
    "halfway_images": "unfinished",
    "halfway_density": "unfinished",
    "halfway_vectors": "unfinished",
    "halfway_pcd": "unfinished",
}


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_says_what_it_is(name, tmp_path):
    run = Run(bring(name, tmp_path))
    assert run.kind == KINDS[name] and run.format == 1 and "format" not in run.config
    assert Run.find(run.folder).kind == run.kind and repr(run).endswith(f"kind='{run.kind}')")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ddpm", "is a diffusers pipeline, no run"),
        ("energy", "is an energy; rank data with 'dxmi score'"),
        ("score", "is a score network"),
        ("report", "holds no run (there is no run.yaml)"),
    ],
)
def test_what_is_no_run_is_called_what_it_is(name, says, tmp_path):
    folder = bring(name, tmp_path)
    assert Run.find(folder) is None
    with pytest.raises(ConfigError) as error:
        Run(folder)
    assert error.value.key == str(folder) and error.value.reason.startswith(says)


def test_a_folder_that_is_not_there_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        Run(tmp_path / "nowhere")


def test_a_run_of_a_newer_version_is_refused(tmp_path):
    folder = bring("pcd", tmp_path)
    config = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(yaml.safe_dump({"format": 2, **config}))
    with pytest.raises(ConfigError, match="run.yaml: its format is 2, and this dxmi reads 1; use a newer dxmi"):
        Run(folder)


def test_a_pipeline_run_gives_its_parts(tmp_path):
    run = Run(bring("images", tmp_path))
    assert run.pipeline()(batch_size=2, num_inference_steps=2, output_type="np").images.shape == (2, 8, 8, 1)
    assert run.energy()(torch.zeros(3, 1, 8, 8)).shape == (3,)
    assert run.evaluation == json.loads((run.folder / "evaluation.json").read_text())
    assert dxmi.load_report(run).rows[0]["name"] == run.evaluation["rows"][0]["name"]
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    assert run.draw()(2, 2, generators).shape == (2, 1, 8, 8)


def test_a_run_on_a_density_gives_its_parts(tmp_path):
    run = Run(bring("density", tmp_path))
    assert run.energy()(torch.zeros(3, 2)).shape == (3,) and run.shape is None
    assert not run.energy().training and not dxmi.load_energy(run).training
    kept = load_file(run.folder / "samples.safetensors")["samples"]
    assert run.draw()(4, 1, torch.Generator().manual_seed(0)).shape == (4, *kept.shape[1:])
    with pytest.raises(ConfigError, match="left no pipeline"):
        run.pipeline()


@pytest.mark.parametrize(("name", "says"), [("halfway_images", "holds no finished run"), ("chains", "holds chains")])
def test_what_is_not_there_yet_is_refused(name, says, tmp_path):
    run = Run(bring(name, tmp_path))
    for part in (run.pipeline, run.energy, run.draw):
        with pytest.raises(ConfigError, match=says):
            part()
    assert run.evaluation is None


def test_a_damaged_evaluation_is_named(tmp_path):
    run = Run(bring("images", tmp_path))
    (run.folder / "evaluation.json").write_text("{")
    with pytest.raises(ConfigError, match="evaluation.json: is damaged"):
        _ = run.evaluation
