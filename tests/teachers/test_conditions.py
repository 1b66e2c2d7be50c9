"""What data say of their items: labels and captions, read, checked, drawn with them and learned from."""

import datasets
import numpy as np
import pytest
import torch
from conftest import DIGITS, tiny_unet
from datasets import ClassLabel, Features, Value
from datasets import Image as ImageFeature
from diffusers import ConsistencyModelPipeline, DiffusionPipeline
from image_files import ONE_PROCESS, flat, png
from PIL import Image
from safetensors.torch import load_file
from tiny import tiny

from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.config import DataConfig
from dxmi.data import check_labels, draw_batch, load_data, load_table
from dxmi.game.rollouts import Rollouts


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.fixture
def parquet(tmp_path):
    """Write images whose grey is their row, with a column ``y``, and return the path."""

    def write(values, kind="int64"):
        kind = Value(kind) if isinstance(kind, str) else kind
        rows = {"image": [{"bytes": png(flat(i)), "path": None} for i in range(len(values))], "y": values}
        path = tmp_path / "images.parquet"
        features = Features({"image": ImageFeature(), "y": kind})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        return str(path)

    return write


def rows_of(batch):
    return ((batch.items[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_labels_stay_with_their_images(parquet):
    labels = [3, 1, 4, 1, 5, 9, 2, 6]
    data = DataConfig(path=parquet(labels), label="y", batch_size=3)
    source = load_data(data)
    assert source.about.dtype == torch.long and source.about.tolist() == labels and source.classes == 10
    for number in range(4):
        batch = draw_batch(source, data, number, 7, ONE_PROCESS)
        assert batch.about.tolist() == [labels[i] for i in rows_of(batch)]
    half = source.half(1, seed=0)
    assert half.about.tolist() == [labels[i] for i in half.stored[:, 0, 0, 0]] and len(half) == 4


def test_captions_stay_with_their_images(parquet):
    captions = ["a cat", "a dog", "a cow", "an owl"]
    data = DataConfig(path=parquet(captions, "string"), caption="y", batch_size=2)
    source = load_data(data)
    batch = draw_batch(source, data, 1, 0, ONE_PROCESS)
    assert batch.about == [captions[i] for i in rows_of(batch)] and source.classes is None
    half = source.half(0, seed=0)
    assert half.about == [captions[i] for i in half.stored[:, 0, 0, 0]] and len(half) == 2


def test_named_classes_and_folders_are_labels(parquet, tmp_path):
    path = parquet([1, 0, 1], ClassLabel(names=["no", "yes"]))
    assert load_data(DataConfig(path=path, label="y")).about.tolist() == [1, 0, 1]
    for name, value in (("dogs/a.png", 2), ("cats/b.png", 1), ("dogs/c.png", 3)):
        (tmp_path / "zoo" / name).parent.mkdir(parents=True, exist_ok=True)
        flat(value).save(tmp_path / "zoo" / name)
    source = load_data(DataConfig(path=str(tmp_path / "zoo"), label="label"))
    assert dict(zip(source.pixels[:, 0, 0, 0].tolist(), source.about.tolist(), strict=True)) == {1: 0, 2: 1, 3: 1}


def test_vectors_have_labels_too(tmp_path):
    path = tmp_path / "v.parquet"
    datasets.Dataset.from_dict({"x": [[0.5], [1.5]], "y": [1, 0]}).to_parquet(path)
    batch = load_data(DataConfig(path=str(path), column="x", label="y")).batch(0, 2, 0)
    assert [(x.item() == 0.5) == (y == 1) for x, y in zip(batch.items, batch.about.tolist(), strict=True)] == [True] * 2


@pytest.mark.parametrize(
    ("values", "kind", "key", "says"),
    [
        ([0, 1], "int64", {"label": "z"}, "data.label: .* has no 'z'; it has image, y"),
        (["a"], "string", {"caption": "z"}, "data.caption: .* has no 'z'; it has image, y"),
        ([0.0, 1.5], "float32", {"label": "y"}, "data.label: row 0 of 'y' has 0.0, which is no integer"),
        ([True], "bool", {"label": "y"}, "data.label: row 0 of 'y' has True"),
        ([0, None], "int64", {"label": "y"}, "data.label: row 1 of 'y' has None"),
        ([2, 0, -1], "int64", {"label": "y"}, "data.label: row 2 of 'y' has -1, which is no integer from 0 on"),
        (["a", None], "string", {"caption": "y"}, "data.caption: row 1 of 'y' has None, which is no text"),
        (["a", " "], "string", {"caption": "y"}, "data.caption: row 1 of 'y' has ' '"),
        ([1], "int64", {"caption": "y"}, "data.caption: row 0 of 'y' has 1"),
        ([1], "int64", {"caption": "y", "label": "y"}, "data.caption: .* not both"),
    ],
)
def test_bad_labels_and_captions_name_key_and_row(parquet, values, kind, key, says):
    path = parquet(values, kind)
    with pytest.raises(ConfigError, match=says):
        load_data(DataConfig(path=path, **key))


def test_labels_are_those_of_the_sampler(parquet):
    data = DataConfig(path=parquet([0, 9, 12, 10]), label="y")
    source = load_data(data)
    check_labels(source, data, 13), check_labels(source, data, None)
    with pytest.raises(ConfigError, match=r"^data.label: row 2 has label 12, the sampler knows 0\.\.9$"):
        check_labels(source, data, 10)


def test_labels_for_a_sampler_without_classes_are_refused(config, tmp_path, write, capsys):
    config["data"] |= {"label": "label"}
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 2
    complaint = capsys.readouterr().err
    assert "data.label: " in complaint and complaint.count("\n") == 1 and not (tmp_path / "run").exists()


def test_labels_that_the_teacher_does_not_know_are_refused(config, tmp_path, write, capsys):
    config["sampler"]["teacher"] = str(tiny("classes", tmp_path / "teacher", classes=4))
    config["data"] |= {"label": "label"}
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 2
    complaint = capsys.readouterr().err
    assert "data.label: row 4 has label 4, the sampler knows 0..3" in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_class_conditional_run_draws_the_classes_of_its_batches(config, tmp_path, write, monkeypatch):
    """Fifteen images do not fill a batch of sixteen: the rollout has as many rows as there are labels."""
    seen, play = [], Rollouts.play

    def spy(self, J, shape, data, cond):
        seen.append((shape, len(data), cond))
        return play(self, J, shape, data, cond)

    monkeypatch.setattr(Rollouts, "play", spy)
    rows = load_table(DataConfig(path=str(DIGITS))).select(range(15))
    rows.to_parquet(tmp_path / "few.parquet")
    config["sampler"]["teacher"] = str(tiny("classes", tmp_path / "teacher"))
    config["data"] = {"path": str(tmp_path / "few.parquet"), "label": "label", "batch_size": 16}
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 0
    assert len(seen) == 4 and all(shape == (15, 1, 8, 8) and length == 15 for shape, length, _ in seen)
    assert all(sorted(cond.tolist()) == sorted(rows["label"]) for *_, cond in seen)


# Random crops


def wide(tmp_path, number=3):
    """Images (8,24) whose pixels hold their column, in a folder."""
    for i in range(number):
        columns = np.tile(10 * np.arange(24, dtype=np.uint8), (8, 1))
        Image.fromarray(columns).save(tmp_path / f"{i}.png")
    return str(tmp_path)


def lefts(batch):
    """Where each crop begins; a crop is a run of columns."""
    columns = ((batch.items[:, 0, 0] + 1) * 12.75).round().int()
    assert (columns.diff(dim=1) == 1).all()
    return columns[:, 0].tolist()


@pytest.mark.parametrize("streaming", [False, True])
def test_random_crops_are_uniform_and_come_again(tmp_path, streaming):
    data = DataConfig(path=wide(tmp_path), size=8, crop="random", streaming=streaming)
    source = load_data(data)
    assert source.event_shape == (1, 8, 8)
    drawn = [lefts(source.batch(number, 3, seed=1)) for number in range(170)]
    found = torch.tensor(drawn).flatten()
    counts = found.bincount(minlength=17)
    assert len(counts) == 17 and (counts - 30).abs().max() < 4 * 30**0.5  # four standard deviations of 510/17
    assert [lefts(source.batch(number, 3, seed=1)) for number in range(3)] == drawn[:3]
    assert lefts(source.batch(0, 3, seed=2)) != drawn[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_evaluators_see_the_centres(tmp_path, streaming):
    reference = load_data(DataConfig(path=wide(tmp_path), size=8, crop="random", streaming=streaming)).reference()
    centres = load_data(DataConfig(path=wide(tmp_path), size=8))
    assert torch.equal(reference[:], centres[:])
    assert torch.equal(reference.half(1, seed=0)[:], centres.half(1, seed=0)[:])


def test_a_random_crop_needs_a_size():
    with pytest.raises(ConfigError, match="data.crop: random needs data.size"):
        DataConfig(path="x", crop="random")


# A class-conditional teacher from scratch


@pytest.fixture
def recipe(write):
    unet = {key: tiny_unet().config[key] for key in ("layers_per_block", "norm_num_groups", "add_attention")}
    unet |= {"block_out_channels": [16], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    data = {"path": str(DIGITS), "label": "label", "batch_size": 32}
    config = {"data": data, "unet": unet, "steps": 100, "warmup": 5, "lr": 1e-2, "ema": 0.9}
    return lambda **changes: str(
        write(config | {"noise": {"num_train_timesteps": 20, "beta_end": 0.5, "prediction_type": "sample"}} | changes)
    )


def test_a_teacher_learns_to_draw_classes(tmp_path, recipe):
    """Class 0 is black and class 1 white: what the saved pipeline draws is what it was asked for."""
    rows = {"image": [{"bytes": png(flat(255 * (i % 2), (8, 8))), "path": None} for i in range(64)]}
    rows["y"] = [i % 2 for i in range(64)]
    path = tmp_path / "two.parquet"
    datasets.Dataset.from_dict(rows, features=Features({"image": ImageFeature(), "y": Value("int64")})).to_parquet(path)
    out = tmp_path / "teacher"
    assert main(["pretrain", recipe(data={"path": str(path), "label": "y", "batch_size": 32}), "--out", str(out)]) == 0
    pipeline = DiffusionPipeline.from_pretrained(out)
    assert isinstance(pipeline, ConsistencyModelPipeline) and pipeline.unet.config.num_class_embeds == 2
    pipeline.set_progress_bar_config(disable=True)
    asked = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    given = {"generator": torch.Generator().manual_seed(0), "output_type": "pt", "num_inference_steps": 20}
    drawn = pipeline(batch_size=8, class_labels=asked, **given).images
    assert ((drawn.mean((1, 2, 3)) > 0.5).long() == asked).all()


@pytest.mark.parametrize("objective", ["ddpm", "multi_noise"])
def test_classes_are_read_from_the_digits(recipe, tmp_path, objective):
    noise = {"num_train_timesteps": 5}
    path, out = recipe(steps=2, objective=objective, noise=noise), tmp_path / "teacher"
    assert main(["pretrain", path, "--out", str(out)]) == 0
    weights = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    assert len(weights["class_embedding.weight"]) == 10 == len(set(load_table(DataConfig(path=str(DIGITS)))["label"]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unet": {"num_class_embeds": 3}}, "unet.num_class_embeds: it is read from data.label"),
        ({"objective": "multi_noise", "score": {}, "unet": {}, "noise": {}}, "data.label: only UNets learn classes"),
        ({"data": {"path": str(DIGITS), "caption": "label"}}, "data.caption: nothing here reads texts"),
        ({"data": {"path": str(DIGITS), "cache": "here"}}, "data.cache: nothing here reads texts or encodes"),
    ],
)
def test_bad_recipes_are_one_line(changes, says, recipe, tmp_path, capsys):
    assert main(["pretrain", recipe(**changes), "--out", str(tmp_path / "t")]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1 and not (tmp_path / "t").exists()


@pytest.mark.parametrize("kind", ["int64", ClassLabel(names=["no", "yes"])])
def test_a_stream_teaches_classes_if_it_tells_how_many(recipe, parquet, tmp_path, capsys, kind):
    data = {"path": parquet([1, 0], kind), "label": "y", "batch_size": 2, "streaming": True}
    code = main(["pretrain", recipe(steps=2, data=data), "--out", str(tmp_path / "t")])
    if kind == "int64":
        assert code == 2 and "data.label: this stream does not tell how many" in capsys.readouterr().err
    else:
        weights = load_file(tmp_path / "t" / "unet" / "diffusion_pytorch_model.safetensors")
        assert code == 0 and len(weights["class_embedding.weight"]) == 2
