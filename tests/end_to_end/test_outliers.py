"""examples/benchmarks/outliers.py: energies of the digits as outlier scores."""

import json

import pytest
import torch
from conftest import DIGITS, load_benchmark

from dxmi.config import DataConfig
from dxmi.data import load_images


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("outliers")


def test_no_test_image_and_no_outlier_is_trained_on(benchmark, tmp_path):
    source, path = DataConfig(path=str(DIGITS)), tmp_path / "train.parquet"
    trained, tested, digit = benchmark.split(source, 4, path)
    assert (len(trained), len(tested), len(digit)) == (1292, 324, 181)  # 1797 images, 181 of them fours
    written = load_images(DataConfig(path=str(path)))
    assert torch.equal(written[torch.arange(len(written))], trained)
    rest = {image.numpy().tobytes() for image in torch.cat([tested, digit])}
    assert not rest & {image.numpy().tobytes() for image in trained}


def test_shuffled_images_keep_their_pixels_and_noise_is_uniform(benchmark):
    images = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made = benchmark.corrupted(images, seed=0)
    shuffled, noise = made["shuffled pixels"], made["uniform noise"]
    assert torch.equal(shuffled.flatten(1).sort().values, images.flatten(1).sort().values)
    assert (shuffled != images).float().mean() > 0.9  # a pixel stays in place with chance 1/64
    assert noise.abs().max() <= 1
    assert noise.square().mean() == pytest.approx(1 / 3, abs=4 * (4 / 45 / noise.numel()) ** 0.5)


def test_auroc_below_half_stays_below(benchmark):
    inliers, outliers = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    assert benchmark.auroc(lambda x: x[:, 0], inliers, outliers) == pytest.approx(2.5 / 6)  # two pairs and one tie
    assert benchmark.auroc(lambda x: -x[:, 0], inliers, outliers) == pytest.approx(3.5 / 6)


def test_the_nearest_image_is_a_distance(benchmark):
    trained = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).view(2, 1, 1, 2)
    queries = torch.tensor([[0.0, 1.0], [6.0, 8.0]]).view(2, 1, 1, 2)
    assert benchmark.nearest(trained)(queries).tolist() == pytest.approx([1.0, 5.0])


def test_the_script_runs_from_end_to_end(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / "outliers.json"
    options = ["--held-out", "4", "--rounds", "2", "--teacher-steps", "2", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["outliers.py", *options])
    benchmark.main()
    found = json.loads(out.read_text())
    assert found["rounds"] == found["teacher_steps"] == 2
    (result,) = found["results"]
    assert list(result["auroc"]) == ["digit 4", "shuffled pixels", "uniform noise"]
    assert all(list(row) == ["nearest image", "PCD", "DxMI"] for row in result["auroc"].values())
    assert result["auroc"]["uniform noise"]["nearest image"] == 1
    assert f"| 4 | digit 4 | {result['auroc']['digit 4']['nearest image']:.3f} |" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--held-out", "12"], ["--rounds", "0"], ["--teacher-steps", "-1"]])
def test_wrong_options_are_named(benchmark, option, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["outliers.py", *option])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert f"argument {option[0]}" in capsys.readouterr().err
