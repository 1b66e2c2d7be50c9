"""Anomaly detection on a synthetic stand-in for feature maps: simple scores, an autoencoder, and EBM-VGS.

    python examples/anomaly_standin.py

The last rows are an autoencoder's energy (configs/anomaly_standin_autoencoder.yaml) and the same after EBM-VGS
(configs/anomaly_standin.yaml), so that the gain is visible. --out keeps cells, runs and figures.

Three classes of 14 x 14 cells with 64 numbers on the unit sphere: a mean of the class, a class's own subspace of 6
dimensions, a code of the position, noise. In half of the test maps a block of 2 to 4 cells a side is moved by .35 in a
random direction. No image is involved, and no figure says anything about MVTec.
"""

import math

import torch
from anomaly_loop import compare, figures, in_one_line, options, show, write_figures
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import normalize

from dxmi.api import Labelled

CLASSES, GRID, DIM, RANK = 3, 14, 64, 6
SPREAD, POSITION, NOISE, DEFECT = 0.5, 0.4, 0.0375, 0.35  # sizes next to the class mean, which has 1; noise a number
PIXELS = 16  # of a side of a cell in the masks, 224 in all


def standin(seed: int = 0, images: int = 180) -> tuple[torch.Tensor, Labelled]:
    """Training maps (N,14,14,64) of good things, and as many labelled test maps, half of them with a defect."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    means = normalize(randn(CLASSES, DIM), dim=1)
    bases = torch.linalg.qr(randn(CLASSES, DIM, RANK)).Q
    code = position_code(randn(2, 4, DIM))
    classes = torch.arange(images) % CLASSES

    def good() -> torch.Tensor:
        inside = torch.einsum("nhwr,ndr->nhwd", randn(images, GRID, GRID, RANK), bases[classes]) / math.sqrt(RANK)
        noise = randn(images, GRID, GRID, DIM)
        return means[classes][:, None, None] + SPREAD * inside + POSITION * code + NOISE * noise

    train, test = good(), good()
    labels = torch.arange(images) // CLASSES % 2
    masks = torch.zeros(images, GRID, GRID)
    for image in labels.nonzero().flatten().tolist():
        height, width = torch.randint(2, 5, (2,), generator=generator).tolist()
        top, left = (int(torch.randint(GRID - side + 1, (), generator=generator)) for side in (height, width))
        block = (image, slice(top, top + height), slice(left, left + width))
        test[block] += DEFECT * normalize(randn(DIM), dim=0)
        masks[block] = 1
    large = masks.repeat_interleave(PIXELS, 1).repeat_interleave(PIXELS, 2)
    names = [f"class {c}" for c in classes.tolist()]
    return normalize(train, dim=-1), Labelled(normalize(test, dim=-1), labels, names, large)


def position_code(directions: torch.Tensor) -> torch.Tensor:
    """Waves along both sides, in the directions (2,4,D) of each: (14,14,D), of norm 1 on average."""
    angles = torch.arange(GRID) / GRID * 2 * math.pi
    waves = torch.stack([wave(k * angles) for k in (1, 2) for wave in (torch.sin, torch.cos)])
    down, across = torch.einsum("skd,kg->sgd", directions, waves)
    code = down[:, None] + across[None]
    return code / code.norm(dim=-1).mean()


def simple_scores(train: torch.Tensor, test: torch.Tensor, seed: int, bank: int = 3000) -> dict[str, torch.Tensor]:
    """Scores (N,14,14) that need no training of a network, by name."""
    cells, queries, shape = train.flatten(0, 2), test.flatten(0, 2), test.shape[:3]
    generator = torch.Generator().manual_seed(~seed)  # other numbers than the maps were made of
    some = cells[torch.randperm(len(cells), generator=generator)[:bank]]
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(some).kneighbors(queries)[0][:, 0]
    mahalanobis = EmpiricalCovariance().fit(cells).mahalanobis(queries)
    return {
        "random": torch.rand(shape, generator=generator),
        "distance to the mean": (queries - cells.mean(0)).norm(dim=1).view(shape),
        "nearest neighbour": torch.from_numpy(nearest).view(shape),
        "Mahalanobis": torch.from_numpy(mahalanobis).view(shape),
    }


def main() -> None:
    given = options(__doc__, "anomaly_standin").parse_args()
    train, test = standin(given.seed)
    simple = {name: figures(own, test) for name, own in simple_scores(train, test.items, given.seed).items()}
    rows = simple | compare(given, train, test)
    write_figures(rows, given.out)
    show("synthetic stand-in, AUROC", rows, ["det_max", "det_pool", "loc"])


if __name__ == "__main__":
    in_one_line(main)
