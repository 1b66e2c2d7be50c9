"""Reference statistics on disk: the cache and published files."""

import numpy as np
import pytest
import torch
from conftest import EXTRACTOR
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.extractors.torch_fidelity import Inception
from dxmi_plugins.evaluators.fidelity.evaluator import Fidelity
from dxmi_plugins.evaluators.fidelity.statistics_files import cache_folder, place, read, read_published, write
from torch import Generator

from dxmi.api import ConfigError
from dxmi.api.fingerprint import file_sha256
from dxmi.data import Images

pytestmark = pytest.mark.usefixtures("own_torch_home")

KEY = {"kind": "moments", "fingerprint": "f", "size": "3", "sha256": "s", "resize": "none"}


def images(n, seed):
    pixels = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=Generator().manual_seed(seed))
    return Images(pixels, "noise")


def fidelity(**options):
    return Fidelity(**{"extractor": str(EXTRACTOR), "metrics": ["fid"]} | options)


def moments_file(path, dtype=np.float64, d=64, **more):
    x = np.random.default_rng(0).normal(size=(500, d))
    np.savez(path, mu=x.mean(0).astype(dtype), sigma=np.cov(x, rowvar=False).astype(dtype), **more)
    return path


# The cache


def test_what_is_written_is_read_again():
    tensors = {"mean": torch.rand(3).double(), "covariance": torch.rand(3, 3).double().T}
    write(place(KEY), KEY, tensors)
    found = read(place(KEY), KEY)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("changed", list(KEY))
def test_another_key_is_another_file(changed):
    assert place(KEY | {changed: "other"}) != place(KEY)


def test_a_cache_of_other_data_is_refused_in_one_line(tmp_path):
    write(place(KEY), KEY | {"fingerprint": "g"}, {"mean": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"^cache: .* has fingerprint g, not f; delete it or set cache: false$"):
        read(place(KEY), KEY)


def test_a_damaged_cache_is_refused_by_the_evaluator():
    reference, samples = images(80, 0), images(80, 1)
    fidelity(floor_draws=0)(lambda n: samples[:n], reference)
    (file,) = cache_folder().glob("*")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ConfigError, match=f"^cache: {file} is damaged; delete it$"):
        fidelity()(lambda n: samples[:n], reference)


def test_writing_that_fails_leaves_nothing():
    with pytest.raises(AttributeError):
        write(place(KEY), KEY, {"mean": None})
    assert not list(cache_folder().glob("*"))


# Published statistics


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_published_moments_of_any_width_become_float64(tmp_path, dtype):
    path = moments_file(tmp_path / "cifar10.npz", dtype, d=2048)
    found, file = read_published(path, Inception(None)), np.load(path)
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    assert np.array_equal(found.mean.numpy(), file["mu"]) and np.array_equal(found.covariance.numpy(), file["sigma"])


def test_images_beside_published_moments_do_not_matter(tmp_path):
    """As in ADM's reference batches."""
    path = moments_file(tmp_path / "adm.npz", d=2048, arr_0=np.zeros((2, 4, 4, 3), np.uint8), mu_s=np.zeros(7))
    assert read_published(path, Inception(None)).mean.shape == (2048,)


def test_moments_from_a_file_give_the_distance_of_the_images_they_are_of(tmp_path):
    reference, samples = images(300, 0), images(200, 1)
    extractor = make_extractor(str(EXTRACTOR))
    features = torch.cat([extractor(part)[0] for part in reference.pixels.split(256)]).double().cpu().numpy()
    path = tmp_path / "own.npz"
    np.savez(path, mu=features.mean(0), sigma=np.cov(features, rowvar=False), extractor=extractor.sha256)
    over_images = fidelity(samples=200)(lambda n: samples[:n], reference)
    evaluator = fidelity(samples=200, reference_statistics=str(path), metrics=None)
    with pytest.warns(UserWarning) as caught:
        found, again = (evaluator(lambda n: samples[:n], None) for _ in range(2))
    rule = [str(w.message) for w in caught if "resize" in str(w.message)]
    assert len(rule) == 1 and rule[0].startswith("reference_statistics: own.npz does not tell its resize rule")
    assert found == again
    assert found["fd_digits"] == pytest.approx(over_images["fd_digits"], rel=1e-6)  # covariances are singular
    assert set(found) == {"fd_digits", "is_digits_mean", "is_digits_std"}
    told = {"name": "own.npz", "sha256": file_sha256(path), "resize": "not told by the file"}
    assert evaluator.stamp()["reference_statistics"] == told


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({}, "has no arrays mu and sigma"),
        ({"mu": np.zeros(2048)}, "has no arrays mu and sigma"),
        ({"mu": np.zeros(64), "sigma": np.eye(64)}, r"has mu \(64,\) and sigma \(64, 64\); inception has 2048"),
        ({"mu": np.zeros(2048, int), "sigma": np.eye(2048)}, "mu and sigma are floats"),
        ({"mu": np.full(2048, np.nan), "sigma": np.eye(2048)}, "not finite"),
        ({"mu": np.zeros(2048), "sigma": np.tri(2048)}, "no covariance"),
    ],
)
def test_other_arrays_are_no_statistics(tmp_path, arrays, complaint):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ConfigError, match=rf"^reference_statistics: .*x\.npz.*{complaint}"):
        read_published(tmp_path / "x.npz", Inception(None))


def test_statistics_of_another_extractor_are_refused(tmp_path):
    path = moments_file(tmp_path / "x.npz", extractor="abc")
    with pytest.raises(ConfigError, match=r"^reference_statistics: .*x\.npz is of extractor abc…, not of digits$"):
        fidelity(reference_statistics=str(path))


def test_published_statistics_are_inceptions(tmp_path):
    path = moments_file(tmp_path / "x.npz")
    with pytest.raises(ConfigError, match="does not say its extractor, so it is Inception's, not digits's"):
        fidelity(reference_statistics=str(path))


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04 broken"])
def test_other_files_are_no_statistics(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^reference_statistics: .*x\.npz is no \.npz file of plain arrays$"):
        read_published(tmp_path / "x.npz", Inception(None))


def test_statistics_with_code_in_them_are_not_run(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.array([print], dtype=object), sigma=np.eye(2))
    with pytest.raises(ConfigError, match="plain arrays"):
        read_published(tmp_path / "x.npz", Inception(None))


def test_without_a_reference_the_number_of_samples_has_to_be_given():
    with pytest.raises(ConfigError, match="^reference_statistics: without reference images, give it"):
        fidelity()(lambda n: images(n, 0)[:], None)
