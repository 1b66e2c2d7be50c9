"""Train the small classifier whose features the `fidelity` evaluator can use, on any labelled dataset.

python examples/train_extractor.py examples/data/digits.parquet examples/extractors/digits.safetensors

Every tenth image is held out, or those of --test; the accuracy on them is printed. For CIFAR-10 as Parquet files:

python examples/train_extractor.py train.parquet cifar10.safetensors --test test.parquet --width 64 --epochs 30 --flip
"""

import argparse
from pathlib import Path

import torch
from dxmi_plugins.evaluators.extractors.classifier import Classifier
from torch.nn.functional import cross_entropy

from dxmi.config import DataConfig
from dxmi.data import load_images

Labelled = tuple[torch.Tensor, torch.Tensor]
"""uint8 images (N,C,H,W) and their labels (N,)"""


def load(path: str, image: str, label: str) -> Labelled:
    """The images and labels of a dataset."""
    data = DataConfig(path=path, column=image, label=label)
    images = load_images(data)
    assert isinstance(images.about, torch.Tensor)
    return images.pixels, images.about


def halves(data: Labelled) -> tuple[Labelled, Labelled]:
    """What to train on, and every tenth image."""
    held_out = torch.arange(len(data[0])) % 10 == 0
    return (data[0][~held_out], data[1][~held_out]), (data[0][held_out], data[1][held_out])


def train(data: Labelled, test: Labelled, width: int, epochs: int, flip: bool, seed: int) -> tuple[Classifier, float]:
    """A classifier of the labels, and its accuracy on the test images."""
    torch.manual_seed(seed)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    (x, y), (x_test, y_test) = ([part.to(place) for part in both] for both in (data, test))
    model = Classifier(x.shape[1], int(y.max()) + 1, width).to(place)
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.randint(len(x), (128,)).to(place)
        images = shifted(x[batch])
        if flip:
            images = torch.where(torch.rand(len(images), 1, 1, 1).to(place) < 0.5, images.flip(-1), images)
        loss = cross_entropy(model(images)[1], y[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps}: loss {loss.item():.3f}", flush=True)
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part)[1].argmax(1) for part in x_test.split(512)])
    return model.cpu(), (found == y_test).float().mean().item()


def shifted(x: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to one eighth of its size each way, edges repeated."""
    reach = x.shape[-1] // 8
    padded = torch.nn.functional.pad(x.float(), [reach] * 4, mode="replicate")
    top, left = torch.randint(2 * reach + 1, (2,)).tolist()
    return padded[..., top : top + x.shape[-2], left : left + x.shape[-1]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="Parquet file, folder of images or hub id")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    parser.add_argument("--image", default="image", help="image column")
    parser.add_argument("--label", default="label", help="label column")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--flip", action="store_true", help="mirror images at random, as of photographs")
    parser.add_argument("--test", help="another dataset for the accuracy, in place of every tenth image")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = load(given.data, given.image, given.label)
    data, test = halves(data) if given.test is None else (data, load(given.test, given.image, given.label))
    model, accuracy = train(data, test, given.width, given.epochs, given.flip, given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(given.out)
    print(f"{given.out}: accuracy {accuracy:.4f} on {len(test[0])} images that it was not trained on")
