"""Loading images and drawing batches."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from image_files import ONE_PROCESS, flat, indices, png
from PIL import Image

from dxmi.api import ConfigError
from dxmi.config import DataConfig
from dxmi.data.items import Images, Items
from dxmi.data.load import draw_batch, load_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.fixture
def parquet(tmp_path):
    """Write a Parquet file with an image column (PIL images or raw bytes) and return its path."""

    def write(images, column="image", **others):
        rows = [{"bytes": i if isinstance(i, bytes) else png(i), "path": None} for i in images]
        path = tmp_path / "images.parquet"
        datasets.Dataset.from_dict({column: rows, **others}).to_parquet(path)
        return str(path)

    return write


def numbered(count):
    """Images whose only pixel is their index."""
    return Images(torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1), "numbered")


# Loading


def test_values_span_minus_one_to_one(parquet):
    images = load_images(DataConfig(path=parquet([flat(0), flat(255), flat(51)])))
    assert images.event_shape == (1, 4, 4) and len(images) == 3
    assert images[0].unique().tolist() == [-1.0]
    assert images[1].unique().tolist() == [1.0]
    torch.testing.assert_close(images[2], torch.full((1, 4, 4), -0.6))


def test_pixels_keep_their_places(parquet):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)  # height 5, width 3, RGB
    images = load_images(DataConfig(path=parquet([Image.fromarray(pixels)])))
    assert images.pixels.dtype == torch.uint8
    assert torch.equal(images.pixels[0], torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("colour_first", [True, False])
def test_one_colour_image_makes_all_colour(parquet, colour_first):
    both = [flat((10, 20, 30)), flat(40)]
    images = load_images(DataConfig(path=parquet(both if colour_first else both[::-1])))
    assert sorted(images.pixels[:, :, 0, 0].tolist()) == [[10, 20, 30], [40, 40, 40]]


def test_sixteen_bits_keep_their_range(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert load_images(DataConfig(path=str(tmp_path))).pixels.flatten().tolist() == [0, 1, 128, 255]


def test_values_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tiff")
    refused("row 0 .*no fixed range", path=str(tmp_path))


def test_folder_of_images_in_the_order_of_their_names(tmp_path):
    for name, value in {"b.png": 2, "a.png": 1, "c.png": 3}.items():
        flat(value).save(tmp_path / name)
    assert load_images(DataConfig(path=str(tmp_path))).pixels[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_another_column(parquet):
    path = parquet([flat(7)], column="img", label=[3])
    assert load_images(DataConfig(path=path, column="img")).pixels.unique().tolist() == [7]


def test_size_crops_the_centre(parquet):
    wide = Image.new("L", (16, 8), 0)
    wide.paste(255, (4, 0, 12, 8))
    images = load_images(DataConfig(path=parquet([wide, wide.rotate(90, expand=True)]), size=8))
    assert images.event_shape == (1, 8, 8)
    assert images.pixels.unique().tolist() == [255]


@pytest.mark.parametrize("size", [2, 8])
def test_size_scales_either_way(parquet, size):
    left_half = Image.new("L", (4, 4), 0)
    left_half.paste(200, (0, 0, 2, 4))
    images = load_images(DataConfig(path=parquet([flat(90), left_half]), size=size))
    assert images.event_shape == (1, size, size)
    assert images.pixels[0].unique().tolist() == [90]
    assert images.pixels[1, 0, 0, 0] > 150 and images.pixels[1, 0, 0, -1] < 50


def test_fingerprint_is_that_of_the_pixels(parquet):
    first = load_images(DataConfig(path=parquet([flat(1), flat(2)])))
    assert Images(first.pixels.clone(), "elsewhere").fingerprint == first.fingerprint
    other = first.pixels.clone()
    other[1, 0, 3, 3] += 1
    assert Images(other, first.name).fingerprint != first.fingerprint


def test_fingerprint_tells_shapes_and_types_apart():
    pixels = torch.arange(96, dtype=torch.uint8)
    alike = [pixels.reshape(1, 3, 4, 8), pixels.reshape(1, 3, 8, 4), pixels.view(torch.float32).reshape(1, 3, 4, 2)]
    assert len({Items(stored, "").fingerprint for stored in alike}) == 3


# Batches


def test_an_epoch_visits_each_image_at_most_once():
    images = numbered(11)
    for epoch in range(3):
        seen = [i for k in range(2) for i in indices(images.batch(2 * epoch + k, 5, seed=0).items)]
        assert len(set(seen)) == 10  # the eleventh fills no batch


def test_epochs_differ_in_order():
    images = numbered(64)
    assert indices(images.batch(0, 64, seed=0).items) != indices(images.batch(1, 64, seed=0).items)


def test_every_image_is_seen_in_time():
    images = numbered(11)
    assert {i for k in range(40) for i in indices(images.batch(k, 5, seed=0).items)} == set(range(11))


@pytest.mark.parametrize("number", [0, 1, 5])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch_of_one_process(number, world):
    images = numbered(30)
    shares = [indices(images.batch(number, 4, seed=1, rank=r, world=world).items) for r in range(world)]
    assert [len(share) for share in shares] == [4] * world
    assert sorted(sum(shares, [])) == sorted(indices(images.batch(number, 4 * world, seed=1).items))


def test_a_batch_does_not_depend_on_what_was_asked_before():
    images = numbered(30)
    forwards = [images.batch(k, 8, seed=2).items for k in range(6)]
    torch.manual_seed(1)
    backwards = [images.batch(k, 8, seed=2).items for k in reversed(range(6))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_seeds_differ():
    images = numbered(100)
    assert indices(images.batch(0, 50, seed=0).items) != indices(images.batch(0, 50, seed=1).items)


def test_a_batch_larger_than_the_data_is_all_of_them():
    assert sorted(indices(numbered(5).batch(3, 64, seed=0).items)) == [0, 1, 2, 3, 4]


def test_flip_mirrors_about_half():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(400, 1, 1, 2)
    images, data = Images(pixels.contiguous(), "steps"), DataConfig(path="steps", batch_size=400, flip=True)
    torch.manual_seed(0)
    x = draw_batch(images, data, 0, 0, ONE_PROCESS).items.squeeze()
    mirrored = (x == torch.tensor([1.0, -1.0])).all(1)
    assert ((x == torch.tensor([-1.0, 1.0])).all(1) | mirrored).all()
    assert 160 < mirrored.sum() < 240  # four standard deviations


def test_without_flip_images_stay_as_they_are():
    images = numbered(20)
    drawn = draw_batch(images, DataConfig(path="numbered", batch_size=6), 2, 3, ONE_PROCESS).items
    assert torch.equal(drawn, images.batch(2, 6, seed=3).items)


def test_batches_are_those_of_the_process():
    images, data = numbered(20), DataConfig(path="numbered", batch_size=3)
    second = SimpleNamespace(process_index=1, num_processes=2, device=torch.device("cpu"))
    assert torch.equal(draw_batch(images, data, 1, 0, second).items, images.batch(1, 3, seed=0, rank=1, world=2).items)


# Bad input


def refused(match, **options):
    with pytest.raises(ConfigError, match=match):
        load_images(DataConfig(**options))


def test_missing_path(tmp_path):
    refused("data.path.*nowhere", path=str(tmp_path / "nowhere"))


def test_unknown_hub_dataset(monkeypatch):
    def not_there(path, **_):
        raise FileNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", not_there)
    refused("data.path: someone/nothing.*hub.*doesn't exist", path="someone/nothing")


def test_hub_ids_may_have_dots_and_subsets(monkeypatch, parquet):
    asked = []

    def not_there(path, **options):
        asked.append((path, options["name"], options["split"]))
        raise FileNotFoundError("nothing here")

    monkeypatch.setattr(datasets, "load_dataset", not_there)
    refused("data.path: me/data.v1.1 is neither here nor on the hub", path="me/data.v1.1", subset="en")
    refused("data.path: me/data.v1 is neither", path="me/data.v1")
    assert asked == [("me/data.v1.1", "en", "train"), ("me/data.v1", None, "train")]
    for name in ("me/data.parquet", "me/data.JSON"):
        refused(f"data.path: there is no {name}", path=name)
    refused("data.subset: files have none; leave it out", path=parquet([flat(0)]), subset="en")


def test_empty_dataset(parquet):
    refused("data.path", path=parquet([]))


def test_empty_folder(tmp_path):
    refused("data.path", path=str(tmp_path))


def test_missing_split(tmp_path):
    flat(0).save(tmp_path / "a.png")
    refused("data.path.*validation", path=str(tmp_path), split="validation")


def test_missing_column_lists_the_existing_ones(parquet):
    refused("data.column.*'image'.*picture, label", path=parquet([flat(0)], column="picture", label=[1]))


@pytest.mark.parametrize("values", [[1, 2], [1.5, 2.5], [True, False], ["a", "b"]])
def test_column_without_images(parquet, values):
    refused("data.column.*'label'", path=parquet([flat(0), flat(0)], label=values), column="label")


@pytest.mark.parametrize("garbage", [b"not an image", b"", png(flat(0, (64, 64)))[:60]])
def test_corrupt_image_is_named_by_its_row(parquet, garbage):
    refused("data.path: row 2 ", path=parquet([flat(0), flat(1), garbage, flat(3)]))


def test_corrupt_image_in_a_folder_is_named_by_its_row(tmp_path):
    flat(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    refused("data.path: row 1 ", path=str(tmp_path))


def test_mixed_sizes_need_a_size(parquet):
    path = parquet([flat(0), flat(1, (4, 6))])
    refused(r"data.size: row 1 is \(4, 6\), row 0 is \(4, 4\)", path=path)
    assert load_images(DataConfig(path=path, size=4)).event_shape == (1, 4, 4)


@pytest.mark.parametrize("name", ["notes.txt", "notes.parquet"])
def test_text_file(tmp_path, name):
    (tmp_path / name).write_text("no images here")
    refused(f"data.path.*{name}", path=str(tmp_path / name))
