"""Vectors and draws of a density as data."""

import math

import datasets
import pytest
import torch
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture

from dxmi.api import ConfigError, Energy
from dxmi.config import DataConfig
from dxmi.data import Draws, Vectors, load_data


@pytest.fixture
def parquet(tmp_path, monkeypatch):
    """Write a Parquet file with a column of lists and return its path."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

    def write(rows, kind="float32", column="x"):
        features = datasets.Features({column: datasets.Sequence(datasets.Value(kind))})
        path = tmp_path / "vectors.parquet"
        datasets.Dataset.from_dict({column: rows}, features=features).to_parquet(path)
        return str(path)

    return write


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "uint8"])
def test_vectors_are_taken_as_they_are(parquet, kind):
    vectors = load_data(DataConfig(path=parquet([[0, 1, 255], [3, 4, 5]], kind), column="x"))
    assert isinstance(vectors, Vectors) and vectors.event_shape == (3,)
    assert torch.equal(vectors[:], torch.tensor([[0.0, 1.0, 255.0], [3.0, 4.0, 5.0]]))
    assert sorted(vectors.batch(0, 2, seed=0).items[:, 0].tolist()) == [0, 3]
    assert sorted(vectors.half(k, seed=0)[0, 0].item() for k in (0, 1)) == [0, 3]


@pytest.mark.parametrize(
    ("rows", "kind", "options", "says"),
    [
        ([[1, 2], [3]], "float32", {}, "data.column: row 1 of 'x' has 1 numbers"),
        ([[1, 2], None], "float32", {}, "data.column: row 1 of 'x' has 0 numbers"),
        ([[], []], "float32", {}, "data.column: row 0 of 'x' has 0 numbers"),
        ([[1, 2], [3, math.nan]], "float32", {}, "data.column: row 1 of 'x' is not finite"),
        ([[1, None]], "float32", {}, "data.column: row 0 of 'x' is not finite"),
        ([["a"]], "string", {}, "data.column: 'x' of .* holds no images or lists of numbers"),
        ([], "float32", {}, "data.path: .*no data"),
        ([[1, 2]], "float32", {"size": 8}, "data.size: it is for images"),
        ([[1, 2]], "float32", {"flip": True}, "data.flip: it is for images"),
        ([[1, 2]], "float32", {"column": "y"}, "data.column: .* has no 'y'; it has x"),
    ],
)
def test_bad_vectors_are_refused(parquet, rows, kind, options, says):
    path = parquet(rows, kind)
    with pytest.raises(ConfigError, match=says):
        load_data(DataConfig(**{"path": path, "column": "x", **options}))


def test_draws_depend_on_seed_number_and_process_alone():
    draws = Draws(GaussianMixture("eight_gaussians"))
    first = draws.batch(3, 5, seed=1, rank=1, world=2).items
    torch.randn(7)
    assert torch.equal(first, draws.batch(3, 5, seed=1, rank=1, world=2).items) and draws.event_shape == (2,)
    others = [draws.batch(*key[:2], seed=key[2], rank=key[3]) for key in ((4, 5, 1, 1), (3, 5, 2, 1), (3, 5, 1, 0))]
    assert not any(torch.equal(first, other.items) for other in others)


class Unknown(Energy):
    def forward(self, x, t=None, cond=None):
        return x.sum(1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "data: give either a path or a density"),
        ({"path": "a.parquet", "density": Unknown()}, "data: give either a path or a density"),
        ({"density": Unknown()}, "data.density: Unknown has no exact sampler"),
        ({"density": Unknown(), "flip": True}, "data.flip: draws of a density have none"),
        ({"density": Unknown(), "column": "x"}, "data.column: draws of a density have none"),
    ],
)
def test_impossible_data_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        load_data(DataConfig(**options))
