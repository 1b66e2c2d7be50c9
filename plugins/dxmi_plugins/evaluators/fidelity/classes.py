"""Class shares of samples, and the Fréchet distance with shares put right (MATH 3.10). ``fidelity`` is the plugin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dxmi_plugins.evaluators.extractors.base import Extractor
from dxmi_plugins.evaluators.fidelity.frechet import Gaussian, weighted

RIGHT = "shares_right"
"""what the distance with shares put right is called here; reports have the extractor's name before it"""


def class_figures(
    features: Tensor, classes: Tensor, data: Tensor, distance: Callable[[Gaussian], float]
) -> dict[str, float]:
    """How far samples are from the data class by class, and how far their class shares are (MATH 3.10).

    Each sample counts ``share of its class in the data / share of its class in the samples``: what is left of the
    distance is not class proportions. Classes are what the extractor takes an image for, the data's too.

    Args:
        features: (n,D) of the samples
        classes: (n,) of the samples, in 0..K-1
        data: (K,) how many images of each class the data have
        distance: from moments to the data's own

    Returns:
        ``shares_right``, the distance, unless the samples have none of the data's classes; ``class_tv``, the total
        variation of shares, in [0, 1]; ``class_share_min`` and ``class_share_max``, the share of the least and of the
        most represented class over its share in the data
    """
    counts = torch.bincount(classes, minlength=len(data)).double()
    own, real = counts / counts.sum(), data.double() / data.sum()
    there = real > 0
    ratios = own[there] / real[there]
    weights = real[classes] / own[classes]
    right = {RIGHT: distance(weighted(features, weights))} if (weights > 0).sum() > 1 else {}
    return right | {
        "class_tv": float((own - real).abs().sum() / 2),
        "class_share_min": float(ratios.min()),
        "class_share_max": float(ratios.max()),
    }


def warn_of_missing(classes: Tensor, data: Tensor, name: str) -> None:
    """Warn where the data have a class that no sample (n,) shows: its share cannot be put right."""
    missing = ((torch.bincount(classes, minlength=len(data)) == 0) & (data > 0)).nonzero().flatten().tolist()
    if missing:
        some = f"class {missing[0]}" if len(missing) == 1 else f"{len(missing)} classes, {missing[0]} the first,"
        verb = "is" if len(missing) == 1 else "are"
        warnings.warn(
            f"shares: {some} of {name} {verb} in the data and in no sample, so shares cannot be put right", stacklevel=3
        )


def too_few(n: int, extractor: Extractor) -> str:
    """What is wrong if n samples are fewer than the extractor's classes, so that hardly one could have its share."""
    few = n < (extractor.logits or 0)
    return f"{n} samples are fewer than the {extractor.logits} classes of {extractor.name}" if few else ""


def floors(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """``KEY_floor`` and ``KEY_floor_std`` of each figure: median and spread over draws."""
    found = {}
    for key in figures[0] if figures else ():
        values = [draw[key] for draw in figures if key in draw]
        found[f"{key}_floor"] = float(np.median(values))
        found[f"{key}_floor_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return found
