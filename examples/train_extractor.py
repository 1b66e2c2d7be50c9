"""Train the small classifier whose features the `fidelity` evaluator can use, on any labelled dataset.

python examples/train_extractor.py examples/data/digits.parquet examples/extractors/digits.safetensors

Every tenth image is held out; the accuracy on it is printed.
"""

import argparse
from pathlib import Path

import torch
from dxmi_plugins.evaluators.classifier import Classifier
from torch.nn.functional import cross_entropy

from dxmi.data import Data, load_images, load_table


def train(data: Data, label: str, width: int, epochs: int, seed: int) -> tuple[Classifier, float]:
    """A classifier of the dataset's labels and its accuracy on every tenth image, which it did not see."""
    torch.manual_seed(seed)
    pixels, labels = load_images(data).pixels, torch.tensor(load_table(data)[label])
    held_out = torch.arange(len(pixels)) % 10 == 0
    x, y = pixels[~held_out], labels[~held_out]
    model = Classifier(pixels.shape[1], int(labels.max()) + 1, width)
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.randint(len(x), (128,))
        loss = cross_entropy(model(shifted(x[batch]))[1], y[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps}: loss {loss.item():.3f}", flush=True)
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part)[1].argmax(1) for part in pixels[held_out].split(512)])
    return model, (found == labels[held_out]).float().mean().item()


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
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = Data(path=given.data, column=given.image)
    model, accuracy = train(data, given.label, given.width, given.epochs, given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(given.out)
    print(f"{given.out}: accuracy {accuracy:.4f} on the held-out images")
