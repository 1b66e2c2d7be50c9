"""Anomaly detection and localisation: AUROC of score maps against labels and masks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, Labelled
from dxmi.api.errors import check_some
from dxmi_plugins.evaluators.anomaly.auroc import AGGREGATORS, auroc_table, mean_row


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
        check_some("aggregators", aggregators, AGGREGATORS)
        if window < 1:
            raise ConfigError("window", f"{window} is not positive")
        self.aggregators, self.window, self.align_corners = aggregators, window, align_corners

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n)`` gives the scores (n,h,w) or (n,) of the n items of a ``Labelled``.

        Raises:
            ConfigError: the reference has no labels, or scores, labels and masks do not fit; ``auroc_table`` tells
            FloatingPointError: a score is not finite
        """
        if not isinstance(reference, Labelled):
            raise ConfigError(
                "evaluators",
                "anomaly needs labels, which the data of a run have not",
                "give them to 'dxmi score RUN DATA --labels COLUMN', or as a Labelled reference in Python",
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
