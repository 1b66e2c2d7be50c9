"""Data that are read as batches need them: every kind of file, the same batches again, their share for each process."""

import io
import json
import tarfile
from types import SimpleNamespace

import datasets
import pytest
import torch
from conftest import EXTRACTOR, interrupted
from image_files import flat, indices, png
from safetensors.torch import load_file

from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.config import DataConfig
from dxmi.data.load import draw_batch, load_data
from dxmi.data.streams import Stream


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


def write_shards(folder, shards=2, each=4, size=(2, 2), broken=None):
    """WebDataset shards: image i has the grey i, the class i % 3 and a text."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for i in range(shard * each, (shard + 1) * each):
                files = {"png": png(flat(i, size)), "cls": str(i % 3).encode(), "txt": f"number {i}".encode()}
                if i == broken:
                    files["png"] = b"nothing"
                for kind, content in files.items():
                    told = tarfile.TarInfo(f"{i:05d}.{kind}")
                    told.size = len(content)
                    tar.addfile(told, io.BytesIO(content))
    return str(folder)


def write_parquet(path, number=8):
    rows = {"image": [{"bytes": png(flat(i, (2, 2))), "path": None} for i in range(number)]}
    datasets.Dataset.from_dict(rows | {"label": [i % 3 for i in range(number)]}).to_parquet(path)
    return str(path)


def write_folder(folder, number=8):
    for i in range(number):
        (folder / str(i % 3)).mkdir(parents=True, exist_ok=True)
        flat(i, (2, 2)).save(folder / str(i % 3) / f"{i}.png")
    return str(folder)


@pytest.fixture(params=["webdataset", "pattern", "one shard", "parquet", "folder"])
def given(request, tmp_path):
    """Options of ``Data`` for eight images, whose grey is their number and whose class that modulo 3."""
    kinds = {
        "webdataset": lambda: {"path": write_shards(tmp_path / "w"), "column": "png", "label": "cls"},
        "pattern": lambda: {"path": write_shards(tmp_path / "w") + "/*.tar", "column": "png", "label": "cls"},
        "one shard": lambda: {"path": write_shards(tmp_path / "w", 1, 8) + "/000.tar", "column": "png", "label": "cls"},
        "parquet": lambda: {"path": write_parquet(tmp_path / "p.parquet"), "label": "label"},
        "folder": lambda: {"path": write_folder(tmp_path / "f"), "label": "label"},
    }
    return kinds[request.param]()


def numbers(batch):
    return indices(batch.items[:, 0, 0, 0])


@pytest.mark.parametrize("streaming", [False, True])
def test_every_kind_of_file_gives_all_images_with_their_labels(given, streaming):
    source = load_data(DataConfig(**given, streaming=streaming))
    assert source.event_shape == (1, 2, 2)
    batch = source.batch(0, 8, seed=0)
    assert sorted(numbers(batch)) == list(range(8))
    assert batch.about.tolist() == [i % 3 for i in numbers(batch)]


def test_captions_stream(tmp_path):
    source = load_data(DataConfig(path=write_shards(tmp_path), column="png", caption="txt", streaming=True))
    batch = source.batch(0, 5, seed=3)
    assert batch.about == [f"number {i}" for i in numbers(batch)]


@pytest.fixture
def stream(tmp_path):
    path = write_shards(tmp_path / "shards", shards=3, each=7)
    return lambda **options: load_data(DataConfig(path=path, column="png", streaming=True, **{"buffer": 6, **options}))


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order(stream):
    seen = [i for number in range(6) for i in numbers(stream().batch(number, 7, seed=0))]
    first, second = seen[:21], seen[21:]
    assert sorted(first) == sorted(second) == list(range(21)) and first != second != sorted(first)


def test_a_batch_is_a_function_of_seed_and_number(stream):
    one, other = stream(), stream()
    forwards = [one.batch(number, 5, seed=1) for number in range(9)]  # two epochs and a piece
    assert torch.equal(other.batch(6, 5, seed=1).items, forwards[6].items)  # as a resumed run begins
    assert torch.equal(other.batch(7, 5, seed=1).items, forwards[7].items)
    assert torch.equal(other.batch(2, 5, seed=1).items, forwards[2].items)
    assert not torch.equal(other.batch(2, 5, seed=2).items, forwards[2].items)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_epoch(stream, world):
    """Of three shards, three processes take one each, two every other image."""
    shares = [[i for n in range(7) for i in numbers(stream().batch(n, 1, 4, rank, world))] for rank in range(world)]
    assert len({i for share in shares for i in share}) == 7 * world


def test_batches_are_those_of_the_process(stream):
    data = DataConfig(path="x", streaming=True, batch_size=3)
    second = SimpleNamespace(process_index=1, num_processes=3, device=torch.device("cpu"))
    assert torch.equal(draw_batch(stream(), data, 1, 0, second).items, stream().batch(1, 3, 0, 1, 3).items)


def test_the_reference_is_the_first_images_as_they_come(stream):
    reference = stream(reference=10).reference()
    assert reference.pixels[:, 0, 0, 0].tolist() == list(range(10))
    assert reference.stamp() | {"sha256": ""} == {"name": "the first 10 of shards", "sha256": "", "size": 10}
    assert len(stream().reference()) == 21


# Runs


@pytest.fixture
def streamed(config, tmp_path, write):
    """A run on 40 streamed images against a chain, which is evaluated."""
    data = {"path": write_shards(tmp_path / "w", 2, 20, (8, 8)), "column": "png", "streaming": True, "batch_size": 8}
    config |= {"data": data | {"buffer": 12}, "sampler": {"name": "langevin", "steps": 2, "step_size": 0.01}}
    config |= {"game": {}, "compare_steps": [], "long_chain": None, "steps": 8}
    return str(write(config))


def test_a_killed_run_on_a_stream_resumes_bit_for_bit(streamed, tmp_path):
    assert main(["train", streamed, "--out", str(tmp_path / "whole")]) == 0
    with interrupted(5):  # in the first of two epochs and, with the checkpoint of round 4, again
        assert main(["train", streamed, "--out", str(tmp_path / "half")]) == 1
    assert main(["train", streamed, "--out", str(tmp_path / "half"), "--resume"]) == 0
    whole, half = (load_file(tmp_path / name / "energy" / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(whole[name], half[name]) for name in whole)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "half" / "metrics.jsonl").read_text()


def test_evaluators_compare_with_the_first_of_a_stream(streamed, tmp_path):
    fidelity = f"[{{name: fidelity, extractor: {EXTRACTOR}, metrics: [fid], samples: 12, cache: false}}]"
    out = tmp_path / "run"
    assert main(["train", streamed, "--out", str(out), "--data.reference", "30", "--evaluators", fidelity]) == 0
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["stamp"]["reference"]["size"] == 30 and evaluation["rows"][0]["metrics"]["fd_digits"] > 0


# Bad input


def refused(match, **options):
    with pytest.raises(ConfigError, match=match):
        source = load_data(DataConfig(**{"streaming": True, **options}))
        for number in range(2):
            source.batch(number, 4, seed=0)


def test_a_corrupt_image_is_named_by_its_place_and_file(tmp_path):
    path = write_shards(tmp_path, broken=6)
    refused(r"^data.path: item \d of .* \(00006.png\) is no readable image", path=path, column="png")
    with pytest.raises(ConfigError, match="data.path: row 6 of"):
        load_data(DataConfig(path=path, column="png"))


def test_a_later_item_without_label_is_named(tmp_path):
    rows = {"image": [{"bytes": png(flat(i)), "path": None} for i in range(8)], "y": [0, 1, 2, None, 1, 1, 1, 1]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "p.parquet")
    refused(r"data.label: item \d of 'y' has None, which is no integer", path=str(tmp_path / "p.parquet"), label="y")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([flat(0), flat(1, (4, 6))], r"data.size: item \d of .* is \(4, 6\), the first is \(4, 4\)"),
        ([flat(0), flat((1, 2, 3))], "data.path: item . of .* has colour, the first image has none"),
    ],
)
def test_images_of_two_kinds_are_refused(tmp_path, values, says):
    rows = {"image": [{"bytes": png(value), "path": None} for value in values]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "p.parquet")
    refused(says, path=str(tmp_path / "p.parquet"))


def test_impossible_streams_are_refused(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", 3)
    refused("data.column: .* has no 'png'; it has image, label", path=path, column="png")
    refused("data.column: 'label' of .* holds no images", path=path, column="label")
    refused("data.label: .* has no 'y'", path=path, label="y")
    refused("data.path: there are no shards", path=str(tmp_path / "*.tar"))
    refused("data.cache needs the data to end", path=path, cache="x")
    refused("data.buffer: 0 is not positive", path=path, buffer=0)
    refused("data.reference: it is for data.streaming", path=path, reference=5, streaming=False)
    datasets.Dataset.from_dict({"x": [[0.5], [1.5]]}).to_parquet(tmp_path / "v.parquet")
    refused("data.streaming: it is for images", path=str(tmp_path / "v.parquet"), column="x")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    refused("data.path: .*bad.tar", path=str(tmp_path / "bad.tar"), column="png")
    stream = load_data(DataConfig(path=path, streaming=True))
    assert isinstance(stream, Stream)
    with pytest.raises(ConfigError, match="data.path: .* has too few items for 4 processes"):
        stream.batch(0, 2, 0, rank=3, world=4)
