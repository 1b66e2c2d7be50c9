"""Distances from samples to their nearest training images, pixel by pixel. ``fidelity`` is the plugin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dxmi.api import Samples
from dxmi_plugins.evaluators.extractors.base import Extractor, as_pixels
from dxmi_plugins.evaluators.fidelity.passes import read_items
from dxmi_plugins.evaluators.fidelity.reference import Reference
from dxmi_plugins.evaluators.fidelity.scores import ROWS
from dxmi_plugins.evaluators.fidelity.statistics_files import place, read, write

LEVELS = 127.5
"""of 256, in a unit of images in [-1, 1]"""


class Pixels(Extractor):
    """The pixels themselves, (B,C*H*W) in 0..255, of images with ``channels``; grey ones are repeated for colour."""

    name, resize, library = "pixels", "none", "eight bits"
    sha256 = None

    def __init__(self, channels: int):
        self.channels = channels

    def load(self) -> nn.Module:
        """Nothing to load."""
        return nn.Identity()

    @property
    def device(self) -> torch.device:
        """The GPU if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, None]:
        """Pixels uint8 (B,C,H,W) -> (B,C*H*W) uint8, and no logits."""
        return pixels.flatten(1).to(self.device), None


class KeptNearest:
    """The distance from each sample to its nearest reference image, in L2 over pixels in [-1, 1]; exact.

    All reference images are in memory in eight bits; a product of n and M images and C*H*W pixels is what it costs.
    """

    def __init__(self, real: Reference):
        self.real, self.extractor = real, Pixels(real.images[0].shape[0])
        parts = read_items(real.images, torch.arange(real.size))
        self.images = torch.cat([self.extractor(as_pixels(part, self.extractor))[0] for part in parts])
        self.found = [torch.empty(0, dtype=torch.float64)]

    def add(self, features: Tensor, logits: Tensor | None, rows: Tensor) -> None:
        """Samples' pixels (B,D); the order does not matter."""
        self.found.append(nearest(features, self.images).cpu())

    def result(self, samples: Samples) -> dict[str, float]:
        """``nearest_median``, and ``nearest_data_median`` of the reference's images to the others among them."""
        own = samples.gather(torch.cat(self.found)).median()
        return {"nearest_median": float(own), "nearest_data_median": self.data_median(samples)}

    def data_median(self, samples: Samples) -> float:
        """That of the reference's own images, each left out once; kept in the cache."""
        key = self.real.key(self.extractor, "nearest")
        cached = self.real.fingerprint is not None
        if cached and place(key).is_file():
            return float(read(place(key), key)["median"])
        rows = samples.share(self.real.size).to(self.images.device)
        parts = [nearest(self.images[part], self.images, part) for part in torch.split(rows, ROWS)]
        median = samples.gather(torch.cat([torch.empty(0, dtype=torch.float64), *(p.cpu() for p in parts)])).median()
        if cached:
            write(place(key), key, {"median": median})
        return float(median)


def nearest(points: Tensor, images: Tensor, own: Tensor | None = None) -> Tensor:
    """L2 distances (A,) float64, in [-1, 1] a pixel, from points (A,D) to the nearest of images (M,D), both 0..255.

    ``own`` (A,) says which of the images the points are: these do not count. Whole numbers in float64, so exact.
    """
    points, best = points.double(), torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    for first in range(0, len(images), ROWS):
        part = images[first : first + ROWS].double()
        norms = points.square().sum(1)[:, None] + part.square().sum(1)
        squares = torch.addmm(norms, points, part.T, alpha=-2)
        if own is not None:
            mine = ((own >= first) & (own < first + len(part))).nonzero().flatten()
            squares[mine, own[mine] - first] = torch.inf
        best = torch.minimum(best, squares.amin(1))
    return best.sqrt() / LEVELS
