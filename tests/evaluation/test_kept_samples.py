"""Samples are the same whatever the batches and processes are, and are kept and taken up."""

from threading import Event, local

import pytest
import torch
from accelerate import Accelerator
from conftest import DIGITS
from torch import Generator

from dxmi.api import ConfigError, randn
from dxmi.api.noise import CHUNK, generators
from dxmi.chains import PER_CHUNK, PER_SAMPLE, first_samples, noise_rule
from dxmi.config import DataConfig
from dxmi.data import load_data
from dxmi.evaluation import StoredSamples
from dxmi.evaluation.kept_samples import KeptSamples, ahead

N = CHUNK + 40


class Noise:
    """A draw that is nothing but its noise."""

    per_sample = True

    def __call__(self, n, steps, generator):
        return randn((n, 3), torch.zeros(()), generator)


def chained(n, steps, generator):
    return randn((n, 3), torch.zeros(()), generator)


@pytest.mark.parametrize("batch_size", [1, 7, CHUNK])
def test_samples_do_not_depend_on_batches(batch_size):
    found = KeptSamples(Noise(), 1, 3, Accelerator(), batch_size=batch_size)(N)
    assert torch.equal(found[CHUNK + 1], torch.randn(3, generator=generators(3, [CHUNK + 1])[0]))
    assert torch.equal(found[:10], KeptSamples(Noise(), 1, 3, Accelerator())(10))


def test_one_generator_alone_is_of_a_chunk():
    assert (noise_rule(Noise()), noise_rule(chained)) == (PER_SAMPLE, PER_CHUNK)
    found = KeptSamples(chained, 1, 3, Accelerator(), batch_size=5)(N)
    assert torch.equal(found[CHUNK:], torch.randn(40, 3, generator=Generator().manual_seed(3 * 1_000_003 + 1)))


def test_pictures_show_the_first_samples_drawn_some_at_a_time():
    calls = []

    class Counted(Noise):
        def __call__(self, n, steps, generator):
            calls.append(n)
            return super().__call__(n, steps, generator)

    shown = first_samples([Counted()], 20, 1, seed=3, size=8)[0]
    assert calls == [8, 8, 4] and torch.equal(shown, KeptSamples(Noise(), 1, 3, Accelerator())(20))
    one, other = first_samples([Noise(), chained], 20, 1, seed=3, size=8)
    assert torch.equal(one, other)  # where one of them takes a single generator, both do


def test_images_are_taken_up_where_a_run_stopped(tmp_path):
    """Of 300 asked for after 10, the first chunk is drawn again, since it is longer now; then nothing is."""
    calls = []

    class Images(Noise):
        def __call__(self, n, steps, generator):
            calls.append(n)
            return randn((n, 1, 2, 2), torch.zeros(()), generator)

    first = KeptSamples(Images(), 1, 0, Accelerator(), tmp_path / "kept")(10)
    whole = KeptSamples(Images(), 1, 0, Accelerator(), tmp_path / "kept")(300)
    again = KeptSamples(Images(), 1, 0, Accelerator(), tmp_path / "kept")(300)
    (tmp_path / "kept" / "00001.safetensors").write_bytes(b"cut off")
    assert torch.equal(whole, KeptSamples(Images(), 1, 0, Accelerator(), tmp_path / "kept")(300))
    assert calls == [10, 256, 44, 44] and torch.equal(whole, again) and torch.equal(whole[:10], first)
    levels = (whole + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)  # eight bits, as files have
    with pytest.raises(ConfigError, match="^out: .* holds samples with seed 0 instead of 1"):
        KeptSamples(Images(), 1, 1, Accelerator(), tmp_path / "kept")


def test_samples_of_other_versions_are_not_taken_up(tmp_path, monkeypatch):
    """They would be stamped with these."""
    KeptSamples(Noise(), 1, 0, Accelerator(), tmp_path)(2)
    KeptSamples(Noise(), 1, 0, Accelerator(), tmp_path)
    monkeypatch.setattr("dxmi.evaluation.kept_samples.version", {"dxmi": "9.8", "diffusers": "7.6"}.get)
    with pytest.raises(ConfigError, match="^out: .* holds samples with versions .* instead of .*'diffusers': '7.6'"):
        KeptSamples(Noise(), 1, 0, Accelerator(), tmp_path)


def test_broken_images_are_told():
    with pytest.raises(FloatingPointError, match="not finite"):
        KeptSamples(lambda n, steps, g: torch.full((n, 1, 2, 2), torch.nan), 1, 0, Accelerator())(2)


def test_stored_samples_are_a_part_of_the_data():
    items = load_data(DataConfig(path=str(DIGITS), label="label"))
    samples = StoredSamples(items, Accelerator())
    found, labels = samples(20), samples.labels(20)
    rows = [
        int((items.stored == (image + 1).mul(127.5).round().byte()).flatten(1).all(1).nonzero()[0]) for image in found
    ]
    assert len(set(rows)) == 20 and max(rows) > 20 and labels.tolist() == items.about[rows].tolist()
    assert len(samples(5000)) == len(samples.rows(5000)) == len(items) and len(samples.share(5000)) == 5000


def test_a_thread_draws_ahead_of_who_measures():
    """Two items before they are asked for, in the same order; an error comes where its item would have."""
    made = [Event() for _ in range(4)]

    def source():
        for i, done in enumerate(made):
            done.set()
            yield i
        raise FloatingPointError("bad")

    items = ahead(source(), 2, torch.device("cpu"))
    assert next(items) == 0 and made[2].wait(60)
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(FloatingPointError, match="bad"):
        next(items)
    assert list(ahead(iter([5, 6]), 0, torch.device("cpu"))) == [5, 6]


@pytest.mark.parametrize(("device", "chosen"), [("cuda:1", 1), ("cuda", None), ("cpu", None)])
def test_the_thread_has_the_gpu_of_its_process(device, chosen, monkeypatch):
    own = local()
    monkeypatch.setattr("torch.cuda.set_device", lambda device: setattr(own, "index", device.index))
    source = (getattr(own, "index", None) for _ in range(3))
    assert list(ahead(source, 2, torch.device(device))) == [chosen] * 3


def test_drawing_ahead_changes_no_sample():
    waiting = KeptSamples(Noise(), 1, 3, Accelerator(), batch_size=100)
    waiting.ahead = 3
    assert torch.equal(waiting(N), KeptSamples(Noise(), 1, 3, Accelerator())(N))
