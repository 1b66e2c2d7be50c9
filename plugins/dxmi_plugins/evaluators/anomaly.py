"""Anomaly detection and localisation: AUROC of score maps against labels and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError

from .auroc import AGGREGATORS, auroc_table, mean_row


class Labelled(Dataset[Tensor]):
    """Test images, or what stands for them, with what is known of each: the reference of ``anomaly``.

    Args:
        items: N of them, (N,*S)
        labels: (N,), 0 for good and 1 for defect; None where nobody knows
        classes: the kind of thing each shows; None for one kind
        masks: (N,H,W), 1 where a pixel is defect
        size: (H,W) of the images that the masks belong to; null means that of the items, if these are images (N,C,H,W)
            of 1 or 3 channels

    Raises:
        ConfigError: there are other numbers of them, or the masks are of another size than the images
    """

    def __init__(
        self,
        items: Tensor,
        labels: Tensor | None,
        classes: Sequence[str] | None = None,
        masks: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ):
        for name, given in {"labels": labels, "classes": classes, "masks": masks}.items():
            if given is not None and len(given) != len(items):
                raise ConfigError(f"{name}: there are {len(given)} for {len(items)} images; give one for each")
        if size is None and items.ndim == 4 and items.shape[1] in (1, 3):
            size = (items.shape[2], items.shape[3])
        if masks is not None and size is not None and tuple(masks.shape[1:]) != size:
            raise ConfigError(f"masks: they are {tuple(masks.shape[1:])}, the images {size} (H,W); resize them alike")
        self.items, self.labels, self.classes, self.masks = items, labels, classes, masks

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return self.items[index]


class Anomaly:
    """AUROC of anomaly scores, of each class and their mean (TOOLBOX C): .5 is chance, and below .5 stays below.

    What it is given to compare are no samples but scores of the reference's items, in their order: maps (n,h,w), as of
    the energies of an image's cells, or single numbers (n,). The reference is a ``Labelled``. ``det_max``, ``det_mean``
    and ``det_pool`` rank images by their maps' largest score, mean score, and largest average over a window of the
    upsampled map; ``det`` by a single number; ``loc`` ranks pixels by the map, upsampled to the masks' size
    (bilinear). ``det_max/CLASS`` and so on are those of one class. Ties count half.

    Args:
        aggregators: some of max, mean, pool; null takes all that fit: pool needs masks
        window: side of pool's window, in pixels of the masks
        align_corners: whether the corners of map and mask are one point (UniAD) or their outlines are (VGS)

    Raises:
        ConfigError: an aggregator is unknown, or the window is not positive
    """

    def __init__(self, aggregators: list[str] | None = None, window: int = 16, align_corners: bool = False):
        if aggregators is not None and (not aggregators or set(aggregators) - set(AGGREGATORS)):
            raise ConfigError(f"aggregators: {aggregators} are not some of {', '.join(AGGREGATORS)}")
        if window < 1:
            raise ConfigError(f"window: {window} is not positive")
        self.aggregators, self.window, self.align_corners = aggregators, window, align_corners

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n)`` gives the scores (n,h,w) or (n,) of the n items of a ``Labelled``.

        Raises:
            ConfigError: the reference has no labels, or scores, labels and masks do not fit; ``auroc_table`` tells
            FloatingPointError: a score is not finite
        """
        if not isinstance(reference, Labelled):
            raise ConfigError(
                "evaluators: anomaly is for Python, with a Labelled reference; the data of a run have no labels"
            )
        table = auroc_table(
            draw(len(reference)),
            reference.labels,
            reference.classes,
            reference.masks,
            self.aggregators,
            self.window,
            self.align_corners,
        )
        own = {} if reference.classes is None else table
        return mean_row(table) | {f"{key}/{name}": value for name, row in own.items() for key, value in row.items()}

    def stamp(self) -> dict[str, Any]:
        """Implementation, and how maps become figures."""
        return {
            "implementation": f"scikit-learn {version('scikit-learn')} roc_auc_score",
            "aggregators": "all that fit" if self.aggregators is None else self.aggregators,
            "window": self.window,
            "upsampling": f"bilinear, align_corners {self.align_corners}",
        }
