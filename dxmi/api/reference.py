"""What samples or scores are held against: samples of a known density, labelled items."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, randperm
from torch.utils.data import Dataset

from dxmi.api.energy import Energy, ExactDraws, StoredDraws
from dxmi.api.errors import ConfigError


class DensitySamples(Dataset[Tensor]):
    """A known density and samples of it (n,*S), one event (*S) an item.

    They are exact draws, or with ``exact`` False stored ones from long chains.
    """

    def __init__(self, energy: Energy, samples: Tensor, exact: bool = True):
        self.energy, self.samples, self.exact = energy, samples, exact

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        return self.samples[index]


class Labelled(Dataset[Tensor]):
    """Test images, or what stands for them, with what is known of each: the reference of ``anomaly``.

    Args:
        items: N of them, (N,*S)
        labels: (N,), 0 for good and 1 for defect; None where nobody knows
        classes: the kind of thing each shows; None for one kind
        masks: (N,H,W), 1 where a pixel is defect
        size: (H,W) of the images that the masks belong to; None means that of the items, if these are images (N,C,H,W)
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
                raise ConfigError(name, f"there are {len(given)} for {len(items)} images", "give one for each")
        if size is None and items.ndim == 4 and items.shape[1] in (1, 3):
            size = (items.shape[2], items.shape[3])
        if masks is not None and size is not None and tuple(masks.shape[1:]) != size:
            raise ConfigError(
                "masks", f"they are {tuple(masks.shape[1:])}, the images {size} (H,W)", "resize them alike"
            )
        self.items, self.labels, self.classes, self.masks = items, labels, classes, masks

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return self.items[index]


def reference_samples(energy: Energy, n: int, generator: Generator | None = None) -> DensitySamples:
    """N exact draws from a known density; else up to n of its stored samples, at random and each at most once.

    Raises:
        ConfigError: it has neither
    """
    if isinstance(energy, ExactDraws):
        return DensitySamples(energy, energy.sample(n, generator))
    if not isinstance(energy, StoredDraws):
        raise ConfigError(
            "energy", f"{type(energy).__name__} has neither exact nor stored samples to compare others with"
        )
    stored = energy.reference()
    return DensitySamples(energy, stored[randperm(len(stored), generator=generator)[:n]], exact=False)
