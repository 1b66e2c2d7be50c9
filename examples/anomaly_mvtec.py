"""Anomaly detection on MVTec-AD's folder: one autoencoder energy for all classes, before and after EBM-VGS.

    python examples/anomaly_mvtec.py FOLDER

FOLDER holds CLASS/train/good, CLASS/test/DEFECT and CLASS/ground_truth/DEFECT/NAME_mask.png. Images become 14 x 14
cells of a frozen EfficientNet's features; cells become energies; images are ranked by their largest cell (det_max) and
pixels by the upsampled map (loc). Features are kept in --cache, so a second run does not go through the images again;
--out keeps cells, runs and figures. The settings are those of configs/anomaly_mvtec_autoencoder.yaml and
configs/anomaly_mvtec.yaml.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from anomaly_loop import compare, in_one_line, options, show, write_figures
from PIL import Image

from dxmi.api import Labelled
from dxmi.api.errors import require
from dxmi.data import FeatureMaps

COLUMNS = ["det_max", "det_pool", "loc"]
SUFFIXES = {".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff"}


class Photo(NamedTuple):
    """A test image, its class, and the mask of its defect; None where it is good."""

    file: Path
    kind: str
    mask: Path | None


def images(folder: Path) -> list[Path]:
    """The image files in a folder, in order."""
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)


def read_folder(folder: Path) -> tuple[list[Path], list[Photo]]:
    """Training images, all good, and test images of all classes.

    Raises:
        ConfigError: there are none, or a mask is missing or of another size than its image
    """
    classes = [path for path in sorted(folder.glob("*")) if (path / "train" / "good").is_dir()]
    train = [file for path in classes for file in images(path / "train" / "good")]
    test = [photo for path in classes for photo in photos(path)]
    require(bool(train), f"{folder}", "there are no images in CLASS/train/good", "give the folder of MVTec-AD")
    require(bool(test), f"{folder}", "there are no images in CLASS/test/DEFECT", "give the folder of MVTec-AD")
    return train, test


def photos(folder: Path) -> list[Photo]:
    """The test images of one class; raises ConfigError as ``read_folder`` tells."""
    found = []
    for kind in sorted(path for path in (folder / "test").glob("*") if path.is_dir()):
        for file in images(kind):
            mask = None if kind.name == "good" else folder / "ground_truth" / kind.name / f"{file.stem}_mask.png"
            if mask is not None:
                require(mask.is_file(), f"{file}", f"its mask {mask} is missing")
                with Image.open(file) as image, Image.open(mask) as other:
                    own, theirs = image.size, other.size
                require(own == theirs, f"{mask}", f"the mask has {theirs} pixels (W,H), its image {own}")
            found.append(Photo(file, folder.name, mask))
    return found


def read_mask(photo: Photo, size: int) -> torch.Tensor:
    """1 where a pixel is defect, (size,size)."""
    if photo.mask is None:
        return torch.zeros(size, size)
    with Image.open(photo.mask) as image:
        pixels = np.array(image.convert("L").resize((size, size), Image.Resampling.NEAREST))
    return (torch.from_numpy(pixels) > 127).float()


def main() -> None:
    parser = options(__doc__, "anomaly_mvtec")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="google/efficientnet-b4", help="hub id or folder of an EfficientNet")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side of the resized images")
    parser.add_argument("--grid", type=int, default=14, help="cells of a side of a map")
    parser.add_argument("--cache", type=Path, default=Path("runs/anomaly_mvtec"), help="folder to keep features in")
    parser.add_argument("--align-corners", action="store_true", help="upsample maps as UniAD does")
    given = parser.parse_args()
    photos_of_good, test = read_folder(given.folder)
    features = FeatureMaps(given.backbone, given.size, given.grid)
    features.to("cuda" if torch.cuda.is_available() else "cpu")
    maps = [features.of_files(files, given.cache) for files in (photos_of_good, [photo.file for photo in test])]
    labels = torch.tensor([photo.mask is not None for photo in test]).long()
    masks = torch.stack([read_mask(photo, given.size) for photo in test])
    kinds = [photo.kind for photo in test]
    known = Labelled(maps[1], labels, kinds, masks, (given.size, given.size))
    print(f"{len(maps[0])} training and {len(test)} test images of {len(set(kinds))} classes")
    rows = compare(given, maps[0], known, align_corners=given.align_corners)
    write_figures(rows, given.out)
    for name, found in rows.items():
        own = {kind: {key: found[f"{key}/{kind}"] for key in COLUMNS} for kind in sorted(set(kinds))}
        show(f"{name}, AUROC", own | {"mean": found}, COLUMNS)


if __name__ == "__main__":
    in_one_line(main)
