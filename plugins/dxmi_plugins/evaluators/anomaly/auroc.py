"""AUROC of score maps, of images and of pixels, class by class. Pure functions; ``anomaly`` is the plugin."""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as shortened

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dxmi.api import ConfigError

AGGREGATORS = ("max", "mean", "pool")


def auroc_table(
    scores: Tensor,
    labels: Tensor | None,
    classes: Sequence[str] | None = None,
    masks: Tensor | None = None,
    aggregators: Sequence[str] | None = None,
    window: int = 16,
    align_corners: bool = False,
) -> dict[str, dict[str, float]]:
    """The figures of each class by its name; without ``classes`` all images are of one, ``all``.

    Scores (N,h,w) or (N,), labels (N,) of 0 and 1, masks (N,H,W) of 0 and 1. ``Anomaly`` tells options and figures.

    Raises:
        ConfigError: labels are missing or not 0 and 1; a class has good images alone, defective ones alone, or no
            defective pixel; there are not as many of each; an aggregator needs maps or masks that are not there
        FloatingPointError: a score is not finite
    """
    labels = checked(scores, labels, masks)
    names = ["all"] * len(scores) if classes is None else list(classes)
    if len(names) != len(scores):
        raise ConfigError("classes", f"there are {len(names)} for {len(scores)} images", "give one for each")
    aggregators = fitting(aggregators, scores, masks, window)
    table = {}
    for name in sorted(set(names)):
        rows = torch.tensor([own == name for own in names])
        part = None if masks is None else masks[rows]
        table[name] = figures(name, scores[rows], labels[rows], part, aggregators, window, align_corners)
    return table


def mean_row(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over classes of each figure."""
    rows = list(table.values())
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def checked(scores: Tensor, labels: Tensor | None, masks: Tensor | None) -> Tensor:
    """The labels; raises as ``auroc_table`` tells if scores, labels or masks cannot be ranked."""
    if labels is None:
        raise ConfigError(
            "labels", "AUROC needs one for each image, 0 for good and 1 for defect", "these data have none"
        )
    if scores.ndim not in (1, 3) or not scores.numel():
        raise ConfigError("scores", f"they are {tuple(scores.shape)}", "give maps (N,h,w) or one number an image (N,)")
    if not scores.isfinite().all():
        row = int((~scores.isfinite().view(len(scores), -1).all(1)).nonzero()[0])
        raise FloatingPointError(f"the scores of image {row} are not all finite numbers, so they have no order")
    for what, given, ndim in (("labels", labels, 1), ("masks", masks, 3)):
        if given is None:
            continue
        if given.ndim != ndim:
            raise ConfigError(what, f"they are {tuple(given.shape)}", f"give {'(N,)' if ndim == 1 else '(N,H,W)'}")
        if len(given) != len(scores):
            raise ConfigError(what, f"there are {len(given)} for {len(scores)} images", "give one for each")
        if not ((given == 0) | (given == 1)).all():
            raise ConfigError(what, "they are 0 for good and 1 for defect, and here are others")
    return labels


def fitting(aggregators: Sequence[str] | None, scores: Tensor, masks: Tensor | None, window: int) -> Sequence[str]:
    """The aggregators in use; raises ConfigError if one has not what it needs."""
    if scores.ndim == 1:
        if aggregators is not None:
            raise ConfigError("aggregators", "each image has a single score, so there is nothing to aggregate")
        return ()
    fits = masks is not None and window <= min(masks.shape[1:])
    if aggregators is None:
        return AGGREGATORS if fits else AGGREGATORS[:2]
    if "pool" in aggregators and not fits:
        why = "there are none" if masks is None else f"they are {tuple(masks.shape[1:])}"
        raise ConfigError("aggregators", f"pool needs masks of at least {window} x {window} pixels, and {why}")
    return aggregators


def figures(
    name: str,
    scores: Tensor,
    labels: Tensor,
    masks: Tensor | None,
    aggregators: Sequence[str],
    window: int,
    align_corners: bool,
) -> dict[str, float]:
    """``det_*`` and ``loc`` of one class."""
    who = shortened(name)
    if labels.min() == labels.max():
        kind = "good" if labels[0] == 0 else "defective"
        where = "" if name == "all" else f" in class {who}"
        raise ConfigError("labels", f"all are {kind}{where}", "AUROC needs both kinds")
    if scores.ndim == 1:
        return {"det": auroc(labels, scores)}
    maps = scores if masks is None else upsampled(scores, tuple(masks.shape[1:]), align_corners)
    ways = {
        "max": lambda: scores.flatten(1).amax(1),
        "mean": lambda: scores.flatten(1).mean(1),
        "pool": lambda: avg_pool2d(maps[:, None], window, stride=1).flatten(1).amax(1),
    }
    row = {f"det_{way}": auroc(labels, ways[way]()) for way in aggregators}
    if masks is not None:
        if masks.min() == masks.max():
            raise ConfigError("masks", f"those of class {who} have pixels of one kind alone", "AUROC needs both kinds")
        row["loc"] = auroc(masks, maps)
    return row


def upsampled(scores: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """Score maps (N,h,w) at the masks' size (N,H,W), bilinear."""
    return interpolate(scores[:, None], size, mode="bilinear", align_corners=align_corners)[:, 0]


def auroc(labels: Tensor, scores: Tensor) -> float:
    """The share of pairs, one of label 1 and one of 0, that the scores put in order; ties count half."""
    return float(roc_auc_score(labels.flatten().cpu().numpy(), scores.detach().flatten().double().cpu().numpy()))
