"""``dxmi push``: what would go, what goes, and what it refuses. Nothing reaches a network."""

import shutil

import pytest
from conftest import save_teacher
from huggingface_hub import HfApi

from dxmi.cli.main import main

CARD = "---\nlibrary_name: diffusers\n---\n# digits in 2 steps\n"


@pytest.fixture
def run(tmp_path):
    """A run's folder with everything that must stay at home."""
    run = tmp_path / "run"
    save_teacher(run / "pipeline")
    (run / "pipeline" / "README.md").write_text(CARD)
    (run / "run.yaml").write_text("seed: 0\n")
    for name in ("checkpoints/step-000004/model.safetensors", "logs/events", "metrics.jsonl", "energy/config.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("home")
    (run / "pipeline" / ".cache").mkdir()
    (run / "pipeline" / ".cache" / "token.txt").write_text("secret")
    (run / "pipeline" / "unet" / "optimizer.pt").write_text("pickle")
    return run


GOES = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
]


@pytest.fixture
def hub(monkeypatch):
    """The calls that a hub would have had."""
    calls = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, *args, **kwargs: calls.append((args, kwargs)))

    def upload(self, **kwargs):
        calls.append(kwargs)
        return "https://hub/commit"

    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return calls


def test_a_dry_run_prints_what_would_go_and_sends_nothing(run, hub, capsys):
    assert main(["push", str(run), "me/digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "would upload to me/digits (public):"
    assert [line.split()[-1] for line in lines[1:6]] == GOES and lines[6] == "the card begins:"
    weights = (run / "pipeline" / GOES[-1]).stat().st_size
    assert lines[5].split()[:2] == [f"{weights / 1000:.1f}", "kB"]
    assert [line[2:] for line in lines[7:11]] == CARD.splitlines()
    assert lines[-1] == "nothing was sent; give --yes to send it" and hub == []


def test_yes_creates_the_repository_and_sends_the_pipelines_files_alone(run, hub, capsys):
    assert main(["push", str(run), "me/digits", "--private", "--yes"]) == 0
    (args, created), uploaded = hub
    assert args == ("me/digits",) and created == {"repo_type": "model", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "me/digits" and uploaded["allow_patterns"] == GOES
    assert uploaded["folder_path"] == run / "pipeline"
    out = capsys.readouterr().out
    assert out.startswith("uploading to me/digits (private):") and out.endswith("https://hub/commit\n")


def test_a_pipelines_own_folder_goes_alike(run, hub, tmp_path):
    shutil.copytree(run / "pipeline", tmp_path / "exported")
    assert main(["push", str(tmp_path / "exported"), "me/digits", "--yes"]) == 0
    assert hub[1]["allow_patterns"] == GOES


def test_without_a_network_one_line_says_so(run, capsys):
    assert main(["push", str(run), "me/digits", "--yes"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dxmi: failed: push: me/digits was not uploaded: ") and error.count("\n") == 1
    assert "offline" in error


def test_what_is_no_product_is_refused(run, hub, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "no_card")
    (tmp_path / "no_card" / "pipeline" / "README.md").unlink()
    shutil.copytree(run, tmp_path / "unfinished")
    shutil.rmtree(tmp_path / "unfinished" / "pipeline")
    for source, repo, message in (
        (run, "a/b/c", "repo-id: "),
        (tmp_path / "absent", "me/digits", f"{tmp_path / 'absent'}: there is no such folder"),
        (tmp_path / "unfinished", "me/digits", f"{tmp_path / 'unfinished'}: holds no pipeline (no pipeline/model_ind"),
        (tmp_path / "no_card", "me/digits", f"{tmp_path / 'no_card'}: its pipeline has no card (README.md)"),
    ):
        assert main(["push", str(source), repo, "--yes"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"dxmi: {message}") and error.count("\n") == 1
    assert hub == []
