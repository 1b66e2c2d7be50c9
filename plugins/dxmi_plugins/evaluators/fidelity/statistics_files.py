"""Statistics of reference images on disk: the cache, and the files that others have published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dxmi.api import ConfigError
from dxmi.api.files import whole_file
from dxmi_plugins.evaluators.extractors.base import Extractor
from dxmi_plugins.evaluators.fidelity.frechet import Gaussian


def cache_folder() -> Path:
    """Where caches are: ``dxmi`` in torch's home, which TORCH_HOME names."""
    return Path(torch.hub.get_dir()).parent / "dxmi"


def place(key: dict[str, str]) -> Path:
    """Where tensors are cached that depend on what this key says and on nothing else."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"{key['kind']}-{digest[:32]}.safetensors"


def read(path: Path, key: dict[str, str]) -> dict[str, Tensor]:
    """The tensors of a cache; its header has the key as well, so that a file under a wrong name is found out.

    Raises:
        ConfigError: the file is damaged, or holds something else
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError("cache", f"{path} is damaged", "delete it") from error
    for name, value in key.items():
        if header.get(name) != value:
            raise ConfigError(
                "cache", f"{path} has {name} {header.get(name)}, not {value}", "delete it or set cache: false"
            )
    return tensors


def write(path: Path, key: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Tensors as such a file, whole or not at all: a run that is cut off leaves no half of one under the name."""
    with whole_file(path) as draft:
        save_file({k: v.contiguous() for k, v in tensors.items()}, draft, metadata=key)


def read_published(path: Path, extractor: Extractor) -> Gaussian:
    """Mean and covariance from a file with ``mu`` (D,) and ``sigma`` (D,D), as of EDM, ADM and clean-fid.

    Floats of any width become float64. Published files do not say their extractor: it is Inception. One's own can, as
    ``extractor``, the SHA-256 of its weights.

    Raises:
        ConfigError: it cannot be read, has not these arrays, or is of another extractor, whose weights may be missing
    """
    option = "reference_statistics"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("mu", "sigma", "extractor") if name in file}
    except FileNotFoundError as error:
        raise ConfigError(option, f"there is no file {path}") from error
    except (OSError, ValueError, BadZipFile, TypeError, AttributeError) as error:
        raise ConfigError(option, f"{path} is no .npz file of plain arrays") from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise ConfigError(option, f"{path} has no arrays mu and sigma", "such files hold the reference's moments")
    if "extractor" in arrays:
        extractor.ready()  # weights that have to be fetched have no hash before
        if (own := str(arrays["extractor"])) != extractor.sha256:
            raise ConfigError(option, f"{path} is of extractor {own[:16]}…, not of {extractor.name}")
    if "extractor" not in arrays and extractor.name != "inception":
        raise ConfigError(
            option,
            f"{path} does not say its extractor, so it is Inception's, not {extractor.name}'s",
            "give the images themselves, or tell the SHA-256 of its weights by an array 'extractor'",
        )
    return checked(arrays["mu"], arrays["sigma"], extractor, option, path)


def checked(mu: np.ndarray, sigma: np.ndarray, extractor: Extractor, key: str, path: Path) -> Gaussian:
    """Both as float64, from the file that ``key`` names; raises ConfigError if they are no such moments."""
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        raise ConfigError(key, f"{path} holds {mu.dtype} and {sigma.dtype}", "mu and sigma are floats")
    d = extractor.dimension
    if mu.shape != (d,) or sigma.shape != (d, d):
        raise ConfigError(
            key, f"{path} has mu {mu.shape} and sigma {sigma.shape}", f"{extractor.name} has {d} features"
        )
    moments = Gaussian(torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64)))
    scale = moments.covariance.abs().max()
    symmetric = (moments.covariance - moments.covariance.T).abs().max() <= 1e-3 * scale
    if not (moments.mean.isfinite().all() and moments.covariance.isfinite().all() and symmetric):
        raise ConfigError(key, f"{path} has numbers that are not finite, or a sigma that is no covariance")
    return moments
