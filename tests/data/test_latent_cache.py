"""Latents and embedded captions on disk: the same game as without, made anew when what they come from changes."""

import json
from types import SimpleNamespace

import datasets
import pytest
import torch
from accelerate import Accelerator
from conftest import interrupted
from image_files import flat, png
from safetensors.torch import load_file, save_file
from tiny import tiny

from dxmi.api import ConfigError, Sampler
from dxmi.cli.main import main
from dxmi.data.items import Images
from dxmi.data.latent_cache import cached


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


class Doubling(Sampler):
    """Its latents are the images times ``weight``, its conditions the labels plus one."""

    def __init__(self, weight=2.0):
        super().__init__()
        self.weight, self.asked = weight, 0

    def initial(self, shape, generator=None):
        return torch.zeros(shape)

    def step(self, x, t, cost_to_go, generator=None, cond=None):
        return x

    def encode(self, batch, about=None):
        self.asked += len(batch)
        return self.weight * batch, None if about is None else about + 1

    def encoder_fingerprint(self):
        return f"doubling-{self.weight}"


def images(value=0, number=100, labels=True):
    pixels = (torch.arange(number) + value).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Images(pixels, "numbers", torch.arange(number) % 10 if labels else None)


def keep(items, sampler, folder):
    return cached(items, sampler, folder, Accelerator(cpu=True), lambda message: None)


def test_cached_batches_are_those_of_the_encoder(tmp_path):
    source, sampler = images(), Doubling()
    kept = keep(source, sampler, tmp_path)
    for number in range(5):
        given = (number, 24, 3, 1, 2)
        x, cond = sampler.encode(*source.batch(*given))
        batch = kept.batch(*given)
        assert torch.equal(batch.items, x) and torch.equal(batch.about, cond)
    unconditional = images(labels=False)
    assert keep(unconditional, sampler, tmp_path).batch(0, 4, 0).about is None


def test_a_second_run_reads_and_changes_make_a_new_file(tmp_path):
    sampler = Doubling()
    for _ in range(2):
        keep(images(), sampler, tmp_path)
    assert sampler.asked == 100 and len(list(tmp_path.iterdir())) == 1
    relabelled = images()
    relabelled.about = (relabelled.about + 1) % 10
    for items, other in ((images(1), sampler), (relabelled, sampler), (images(), Doubling(3.0))):
        kept = keep(items, other, tmp_path)
        assert torch.equal(kept[:], other.weight * items[:]) and torch.equal(kept.about, items.about + 1)
    assert len(list(tmp_path.iterdir())) == 4


def refused(says, folder, items=None, sampler=None):
    with pytest.raises(ConfigError, match=says) as found:
        keep(items or images(), sampler or Doubling(), folder)
    assert "\n" not in str(found.value)


def test_files_that_are_not_what_they_should_be_are_refused(tmp_path):
    keep(images(), Doubling(), tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    save_file(load_file(file), file, {"fingerprint": "another"})
    refused("data.cache: .* is of other data or another autoencoder; delete it", tmp_path)
    for garbage in (b"", whole[:50], whole[:-1]):
        file.write_bytes(garbage)
        refused("data.cache: .* is damaged .*; delete it", tmp_path)
    file.unlink()
    assert torch.equal(keep(images(), Doubling(), tmp_path)[:], 2 * images()[:])


def test_a_failure_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    refused("data.cache: .* cannot be written: disk full", tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    refused("data.cache: .*file cannot be written", tmp_path / "file")


@pytest.mark.parametrize("error", [ConfigError("data.caption: row 3"), MemoryError("full")])
def test_what_stops_the_main_process_stops_the_others(error, tmp_path, monkeypatch):
    """Two processes, one after the other; the main one's word is what the other one hears in place of its own."""
    told = []

    def broadcast(objects):
        told[:] = told or objects
        objects[:] = told

    def process(rank):
        accelerator = SimpleNamespace(is_main_process=rank == 0, num_processes=2, device=torch.device("cpu"))
        return cached(images(), sampler, tmp_path, accelerator, lambda message: None)

    def fail(batch, about=None):
        raise error

    sampler = Doubling()
    monkeypatch.setattr("dxmi.data.latent_cache.broadcast_object_list", broadcast)
    monkeypatch.setattr(sampler, "encode", fail)
    with pytest.raises(type(error)) as main_process:
        process(0)
    with pytest.raises(ConfigError if isinstance(error, ConfigError) else RuntimeError, match=str(error)):
        process(1)
    assert main_process.value is error and not list(tmp_path.iterdir())


def test_a_sampler_that_encodes_nothing_needs_no_cache(tmp_path):
    class Plain(Doubling):
        def encoder_fingerprint(self):
            return Sampler.encoder_fingerprint(self)

    refused("data.cache: Plain takes the data as they are; leave it out", tmp_path, sampler=Plain())


@pytest.mark.parametrize("option", [{"flip": True}, {"crop": "random", "size": 4}])
def test_what_changes_in_every_batch_cannot_be_kept(option, config, write, tmp_path, capsys):
    config["data"] |= option | {"cache": str(tmp_path / "cache")}
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 2
    complaint = capsys.readouterr().err
    assert f"data.{next(iter(option))}: data.cache keeps each image as it is; leave it out" in complaint
    assert complaint.count("\n") == 1 and not (tmp_path / "cache").exists()


# Runs with latent teachers


@pytest.fixture
def latent(tmp_path, config, write):
    """A run of four rounds on eight captioned images with a tiny latent teacher; path of its config."""

    def build(kind, **scaling):
        images = [{"bytes": png(flat(20 * i, (8, 8))), "path": None} for i in range(8)]
        told = [f"number {i}" for i in range(8)]
        datasets.Dataset.from_dict({"image": images, "text": told}).to_parquet(tmp_path / "images.parquet")
        config["data"] = {"path": str(tmp_path / "images.parquet"), "batch_size": 4}
        config["sampler"]["teacher"] = str(tiny(kind, tmp_path / kind, **scaling))
        if kind == "sd":
            config["data"] |= {"caption": "text"}
            config["sampler"] |= {"prompts": ["number 3"]}
        return str(write(config))

    return build


def losses(path, out, *more):
    assert main(["train", path, "--out", str(out), *more]) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["ldm_kl", "sd"])
def test_a_run_with_the_cache_has_the_losses_of_one_without(kind, latent, tmp_path):
    path, cache = latent(kind), ["--data.cache", str(tmp_path / "cache")]
    without = losses(path, tmp_path / "a")
    for out in ("b", "c"):  # written, then read
        assert losses(path, tmp_path / out, *cache) == [pytest.approx(line, rel=1e-4, abs=1e-6) for line in without]
    (file,) = (tmp_path / "cache").iterdir()
    kept = load_file(file)
    assert kept["x"].shape[0] == 8 and ("cond" in kept) == (kind == "sd")


def test_another_autoencoder_makes_another_cache(latent, tmp_path):
    cache = ["--data.cache", str(tmp_path / "cache")]
    for scale in (0.18215, 0.5):
        losses(latent("ldm_kl", scaling_factor=scale), tmp_path / str(scale), *cache)
    made = sorted((tmp_path / "cache").iterdir(), key=lambda file: file.stat().st_ctime_ns)
    first, second = (load_file(file)["x"] for file in made)
    torch.testing.assert_close(second * 0.18215, first * 0.5)


def test_a_killed_run_with_a_cache_resumes(latent, tmp_path):
    path, cache = latent("ldm_kl"), ["--data.cache", str(tmp_path / "cache")]
    whole = losses(path, tmp_path / "whole", *cache)
    with interrupted(3):
        assert main(["train", path, "--out", str(tmp_path / "half"), *cache]) == 1
    assert losses(path, tmp_path / "half", *cache, "--resume") == whole
