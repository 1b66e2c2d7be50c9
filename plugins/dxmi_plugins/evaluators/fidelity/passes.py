"""One pass over images: batch by batch through extractors, into what the metrics keep of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, Samples
from dxmi_plugins.evaluators.extractors.base import Extractor, as_pixels
from dxmi_plugins.evaluators.fidelity.frechet import Moments
from dxmi_plugins.evaluators.fidelity.scores import Accuracy, InceptionScore, positions

CHUNK = 256  # reference images that are read at a time


class Keeper(Protocol):
    """What a metric keeps of a pass."""

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:
        """Features (B,D) and logits (B,K) of the images with these indices (B,)."""


class KeptFeatures:
    """All features in float32 on the CPU: their memory grows with the number of images."""

    def __init__(self, dimension: int):
        self.parts, self.rows = [torch.empty(0, dimension)], [torch.empty(0, dtype=torch.long)]

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:
        """Keep them."""
        self.parts.append(features.cpu())
        self.rows.append(rows)

    def gathered(self, samples: Samples) -> Tensor:
        """Those of all processes (n,D), in the order of their indices."""
        order = samples.gather(torch.cat(self.rows)).argsort()
        return samples.gather(torch.cat(self.parts))[order]


class KeptClasses(KeptFeatures):
    """What the extractor takes each image for, on the CPU."""

    def __init__(self) -> None:
        self.parts, self.rows = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:
        """Keep the largest logit's number."""
        assert logits is not None
        super().add(logits.argmax(1), None, rows)


class KeptMoments:
    """Moments of the features, in ``parts`` disjoint random parts of n images: ``parts * D^2`` numbers."""

    def __init__(self, dimension: int, n: int, parts: int = 1):
        self.parts = [Moments(dimension) for _ in range(parts)]
        self.part = positions(n) % parts

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:
        """Each to its part."""
        for number, moments in enumerate(self.parts):
            own = (self.part[rows] == number).nonzero().flatten()
            moments.update(features if len(own) == len(rows) else features[own.to(features.device)])

    def reduced(self, samples: Samples) -> list[Moments]:
        """Each part's moments, over all processes."""
        return [moments.reduced(samples.reduce) for moments in self.parts]


class KeptScore(InceptionScore):
    """Sums for the Inception score."""

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:  # type: ignore[override]
        """Take in the logits."""
        assert logits is not None
        super().add(logits, rows)


class KeptAccuracy(Accuracy):
    """Counts of samples that show what they were drawn at, ``labels`` (n,)."""

    def __init__(self, classes: int, labels: Tensor):
        super().__init__(classes)
        self.labels = labels

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:  # type: ignore[override]
        """Take in the logits."""
        assert logits is not None
        super().add(logits, self.labels[rows])


class Pass(NamedTuple):
    """An extractor, and who keeps what of its features."""

    extractor: Extractor
    keepers: list[Keeper]


def go_through(batches: Iterable[Tensor], rows: Tensor, passes: list[Pass], size: int) -> Tensor:
    """Images (B,C,H,W) in [-1, 1], those of ``rows`` in their order, through the extractors, ``size`` at a time.

    Returns whether all were finite, as a scalar 0 or 1: it is for the caller to ask all processes.
    """
    finite, first = torch.ones(()), 0
    for batch in batches:
        for images in torch.split(batch, size):
            own = rows[first : first + len(images)]
            first += len(images)
            finite *= images.isfinite().all().cpu()
            for extractor, keepers in passes:
                features, logits = extractor(as_pixels(images, extractor))
                for keeper in keepers:
                    keeper.add(features, logits, own)
    return finite


def read_items(dataset: Dataset[Tensor], rows: Tensor) -> Iterator[Tensor]:
    """Items of these rows, some (B,C,H,W) at a time.

    Raises:
        ConfigError: one is of another size than the first
    """
    shape = dataset[0].shape
    for part in torch.split(rows, CHUNK) if len(rows) else ():  # a process may have none
        items = [dataset[row] for row in part.tolist()]
        for row, item in zip(part.tolist(), items, strict=True):
            if item.shape != shape:
                raise ConfigError(
                    "reference", f"image {row} is {tuple(item.shape)}, image 0 is {tuple(shape)}", "resize them alike"
                )
        yield torch.stack(items)


def on_all(samples: Samples) -> Callable[[bool], bool]:
    """What tells whether something holds on all processes."""
    return lambda holds: int(samples.reduce(torch.tensor(int(not holds)))) == 0
