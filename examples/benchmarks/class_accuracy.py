"""How often a class-conditional student draws the digit it was asked for, beside its teacher.

    python examples/benchmarks/class_accuracy.py --out examples/benchmarks/class_accuracy.json

``dxmi train configs/digits_classes.yaml`` once for each seed, in its own process; then as many images of each class
from the student's exported pipeline in four steps, and from the teacher's under DDIM in four and fifty. Each is told
by the classifier of examples/extractors/digits.safetensors, which has 97.8 % of held-out digits right.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import ConsistencyModelPipeline, DDIMScheduler, DiffusionPipeline
from dxmi_plugins.evaluators.extractors.classifier import Classifier

ROOT = Path(__file__).parents[2]
CLASSES, STEPS = 10, 4


@torch.no_grad()
def accuracies(pipeline: Any, steps: int, each: int, seed: int) -> list[float]:
    """The share of ``each`` images of every class that the classifier takes for it, (10,)."""
    classifier = Classifier.load(ROOT / "examples" / "extractors" / "digits.safetensors")
    pipeline.set_progress_bar_config(disable=True)
    labels = torch.arange(CLASSES).repeat_interleave(each)
    drawn = pipeline(
        batch_size=len(labels),
        class_labels=labels,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    pixels = torch.from_numpy(drawn * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
    right = classifier(pixels)[1].argmax(1) == labels
    return [share.item() for share in right.float().view(CLASSES, each).mean(1)]


def student(seed: int, folder: Path) -> Any:
    """The pipeline of a run with that seed."""
    config, out = ROOT / "configs" / "digits_classes.yaml", folder / f"seed-{seed}"
    command = [sys.executable, "-m", "dxmi", "train", config, "--seed", seed, "--out", out, "--tracker", "null"]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return DiffusionPipeline.from_pretrained(out / "pipeline", trust_remote_code=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--each", type=int, default=200, help="images of each class")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    teacher = ConsistencyModelPipeline.from_pretrained(ROOT / "examples" / "teachers" / "digits_classes")
    ddim = ConsistencyModelPipeline(teacher.unet, DDIMScheduler.from_config(teacher.scheduler.config))
    rows: dict[str, list[float]] = {}
    for steps in (STEPS, 50):
        rows[f"teacher-ddim, {steps} steps"] = accuracies(ddim, steps, given.each, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        for seed in given.seeds:
            pipeline = student(seed, Path(folder))
            rows[f"student, {STEPS} steps, seed {seed}"] = accuracies(pipeline, STEPS, given.each, seed=0)
    print(f"{'':<26}{'mean':>7}" + "".join(f"{k:>7}" for k in range(CLASSES)))
    for name, found in rows.items():
        print(f"{name:<26}{sum(found) / CLASSES:>7.3f}" + "".join(f"{share:>7.3f}" for share in found))
    if given.out:
        facts = {"machine": platform.machine(), "python": platform.python_version(), "torch": version("torch")}
        given.out.write_text(json.dumps({**facts, "each": given.each, "accuracy": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
