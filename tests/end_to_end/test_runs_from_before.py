"""Folders that dxmi left before its code was sorted into rooms still sample, evaluate, score, export and resume."""

import json

import datasets
import pytest
import torch
from losses import agree, compare, machine
from runs_from_before import CASES, PLACE, RUNS, do

RECORDS = {kind: json.loads((RUNS / f"{kind}.json").read_text()) for kind in ("figures", "resumed")}


@pytest.fixture
def one_thread(monkeypatch, tmp_path):
    """As the figures were recorded; and datasets keeps nothing of what it reads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "does"), CASES, ids=[f"{name}-{does.__name__}" for name, does in CASES])
def test_a_folder_of_before_gives_the_figures_of_before(name, does, one_thread, tmp_path):
    kind = "resumed" if does.__name__ == "resumed" else "figures"
    record = RECORDS[kind]
    found, wanted = do(name, does, tmp_path), record[kind][name][does.__name__]
    if does.__name__ in ("again", "resumed", "inspected"):  # rounds
        compare(found, wanted, record["machine"])
    else:
        agree(found, wanted, 0.0 if machine() == record["machine"] else 1e-3)


def test_every_kept_folder_is_tried_and_names_no_place():
    names = {path.name for path in RUNS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert names == {name for name, _ in CASES}
    assert sum(path.stat().st_size for path in RUNS.rglob("*")) < 1_000_000
    for path in (path for path in RUNS.rglob("*") if path.suffix in (".yaml", ".json", ".jsonl")):
        for word in path.read_text().replace('"', " ").split():
            assert not word.startswith("/"), f"{path}: {word}"
    assert PLACE in (RUNS / "images" / "run.yaml").read_text()
