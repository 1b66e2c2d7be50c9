"""What a stock scheduler can say, the model card, and ``dxmi export``."""

import json
from functools import cache

import pytest
from conftest import DIGITS, EXTRACTOR, interrupted
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from huggingface_hub import ModelCard
from tiny import tiny

from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig
from dxmi.runs.model_card import model_card

STEPS = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a pipeline of some kind, saved once."""
    home = tmp_path_factory.mktemp("sources")
    return cache(lambda kind: str(tiny(kind, home / kind)))


@pytest.mark.parametrize("loaded", [True, False])
def test_a_card_names_hub_ids_that_were_loaded(loaded, tmp_path, monkeypatch):
    """A relative path that is not there any more looks like one, and is nobody's business."""
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    if loaded:
        for name, text in (("refs/main", "abc"), ("snapshots/abc/model_index.json", "{}")):
            (hub / "models--someone--teacher" / name).parent.mkdir(parents=True)
            (hub / "models--someone--teacher" / name).write_text(text)
    sampler = {"name": "diffusion", "teacher": "someone/teacher", "scheduler": "ancestral", "prompts": None}
    config = {"energy": "conv", "sampler": sampler, "data": {"path": str(DIGITS)}}
    config = Checked(TrainConfig, config).resolved
    config["data"]["path"] = "someone/data"
    model_card(tmp_path, config, 4, None)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == ("someone/teacher" if loaded else None) and "on someone/data," in card.content
    assert f"Teacher: {'someone/teacher' if loaded else 'teacher'}." in card.content


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (
            "ddpm",
            {"nodes": "quadratic"},
            r"^scheduler.nodes: no stock scheduler has the timesteps \[800, 200, 0\]; .*trailing, or",
        ),
        (
            "ddpm",
            {"eta": 0.0},
            "^scheduler.nodes: .*trailing and a number of steps that divides 1000, or export exact$",
        ),
        ("ddpm", {"eta": 0.5}, "^scheduler.eta: a stock scheduler makes steps with eta 0 or 1, not 0.5; "),
        (
            "edm",
            {"nodes": "karras"},
            "^scheduler.eta: stock schedulers make EDM steps without new noise alone; .* eta: 0, or",
        ),
        ("edm", {"nodes": "karras", "extra_node": True}, "^scheduler.extra_node: stock schedulers end at the data; "),
        (
            "edm",
            {"eta": 0.0},
            "^scheduler.nodes: stock schedulers make no steps at the timesteps .*nodes: karras and eta: 0",
        ),
        ("sd3", {}, "^scheduler.eta: stock schedulers make flow-matching steps without new noise alone; "),
    ],
)
def test_what_stock_schedulers_cannot_say_is_refused(kind, options, match, source):
    sampler = DiffusionSampler(source(kind), AncestralScheduler(STEPS, **options))
    with pytest.raises(ConfigError, match=match) as caught:
        sampler.stock()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ddpm", {"nodes": "leading"}),
        ("ddpm", {"nodes": "leading", "eta": 0.0}),
        ("ddpm", {"nodes": [999, 749, 499, 249], "eta": 0.0}),
        ("sdxl", {"eta": 0.0}),
        ("edm", {"nodes": "karras", "eta": 0.0, "rho": 3.0}),
        ("sd3", {"nodes": [950, 600, 300, 20], "eta": 0.0}),
    ],
)
def test_what_stock_schedulers_can_say_is_found(kind, options, source):
    sampler = DiffusionSampler(source(kind), AncestralScheduler(4, **options)).stock()
    found = sampler.plain_scheduler
    assert type(found).__module__.startswith("diffusers.")
    if "rho" in options:
        assert found.config.rho == pytest.approx(3.0, abs=1e-4)


# The command


@pytest.fixture
def finished(config, write, tmp_path, capsys):
    """A run with figures whose nodes are stock."""
    config["sampler"]["scheduler"]["nodes"] = "trailing"
    config["evaluators"] = [{"name": "fidelity", "extractor": str(EXTRACTOR), "samples": 64}]
    config |= {"compare_steps": [], "lr": {"std": 0.3}}
    run = tmp_path / "run"
    assert main(["train", str(write(config)), "--out", str(run)]) == 0
    capsys.readouterr()
    return run


def test_export_measures_what_stock_costs_and_refuses_folders_that_exist(finished, tmp_path, capsys):
    stock, exact = tmp_path / "stock", tmp_path / "exact"
    assert main(["export", str(finished), "--mode", "stock", "--out", str(stock)]) == 0
    printed = capsys.readouterr().out
    assert "exact" in printed and "stock" in printed
    rows = [line for line in (stock / "README.md").read_text().splitlines() if line.startswith(("| exact", "| stock"))]
    figures = [[float(cell) for cell in row.split("|")[4:-1]] for row in rows]  # after name, steps, n
    assert len(figures) == 2 and figures[0] != figures[1]
    assert all(row.split("|")[3] == " 64 " for row in rows)
    student = json.loads((finished / "evaluation.json").read_text())["rows"][0]["metrics"]
    assert figures[0][0] == pytest.approx(next(iter(student.values())), rel=1e-2)  # as printed: three digits
    assert json.loads((stock / "scheduler" / "scheduler_config.json").read_text())["_class_name"] == "DDPMScheduler"
    kept = tmp_path / "exact.partial" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("precious")
    assert main(["export", str(finished), "--out", str(exact)]) == 0
    assert (exact / "scheduler" / "few_step.py").exists() and kept.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    capsys.readouterr()
    assert main(["export", str(finished), "--out", str(exact)]) == 2
    assert capsys.readouterr().err == f"dxmi: --out: {exact} exists; give another folder\n"


def test_export_refuses_what_is_no_finished_run(config, write, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "new" / "out"
    with interrupted(2):
        main(["train", str(write(config)), "--out", str(run)])
    for folder, message in (
        (
            run,
            "holds no finished run with a pipeline; "
            "go on with it by 'dxmi train ... --resume', or resume=True of dxmi.train",
        ),
        (tmp_path, "holds no run (there is no run.yaml); give the folder that 'dxmi train' left"),
    ):
        capsys.readouterr()
        assert main(["export", str(folder), "--mode", "stock", "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"dxmi: {folder}: {message}\n"
    assert not out.exists()


def test_a_refused_export_leaves_nothing(config, write, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(write(config)), "--out", str(run)]) == 0  # quadratic nodes
    capsys.readouterr()
    assert main(["export", str(run), "--mode", "stock", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("dxmi: sampler.scheduler.nodes: no stock scheduler has the timesteps")
    assert not list(tmp_path.glob("out*"))
