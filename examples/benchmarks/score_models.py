"""A noise-conditional score model under annealed Langevin against a DDPM teacher: Fréchet distances in one table.

Trains configs/digits_scores.yaml (or takes ``--model``, a folder that ``dxmi pretrain`` left) and draws with it; the
teacher is that of configs/digits_td.yaml, under DDIM with 50 steps and under its own ancestral steps, all 1000. Every
row is drawn by a stock diffusers pipeline, from the same seeds, and measured by the evaluator of that config.

    python examples/benchmarks/score_models.py --out examples/benchmarks/score_models.json
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline
from dxmi_plugins.schedulers import annealed_langevin as annealed_langevin  # so that diffusers finds the class
from torch import Generator, Tensor

from dxmi.api import Evaluator
from dxmi.config import Checked, DataConfig, PretrainConfig, build_plugin, read_yaml
from dxmi.data import load_images
from dxmi.evaluation import Candidate, compare, data_floor, draw_candidate, show
from dxmi.pretraining import pretrain

CONFIGS = Path(__file__).parents[2] / "configs"


def train(overrides: list[str], folder: Path) -> tuple[Path, float]:
    """The score model and how many CPU-seconds it took."""
    start = time.process_time()
    config = Checked(PretrainConfig, read_yaml(CONFIGS / "digits_scores.yaml", overrides))
    return pretrain(config, folder / "scores"), time.process_time() - start


def candidate(name: str, pipeline: DDPMPipeline | DDIMPipeline, steps: int) -> Candidate:
    """A pipeline as a row of the table; ``steps`` are what it is asked for."""
    pipeline.set_progress_bar_config(disable=True)

    def draw(n: int, steps: int, generator: Generator) -> Tensor:
        images = pipeline(n, generator, num_inference_steps=steps, output_type="np").images
        return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1

    return draw_candidate(draw, name, steps, steps, Accelerator())


def rivals(model: Path, teacher: str) -> tuple[list[Candidate], int]:
    """The three rows, and the network evaluations of the first."""
    scores, ddpm = DDPMPipeline.from_pretrained(model), DDPMPipeline.from_pretrained(teacher)
    ddim = DDIMPipeline(unet=ddpm.unet, scheduler=DDIMScheduler.from_config(ddpm.scheduler.config))
    rows = [
        candidate("score model, annealed Langevin", scores, len(scores.scheduler)),
        candidate("teacher, DDIM", ddim, 50),
        candidate("teacher, ancestral", ddpm, len(ddpm.scheduler)),
    ]
    return rows, len(scores.scheduler.timesteps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a trained score model (default: train one)")
    parser.add_argument("--samples", type=int, help="images of each row (default: as in configs/digits_td.yaml)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that images are drawn from")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given, overrides = parser.parse_known_args()
    torch.set_num_threads(1)  # CPU-seconds of two threads count twice

    digits = read_yaml(CONFIGS / "digits_td.yaml")
    asked = {} if given.samples is None else {"samples": given.samples}
    evaluators = [build_plugin(Evaluator, e | {"metrics": ["fid"]} | asked) for e in digits["evaluators"]]
    images = load_images(DataConfig(**digits["data"]))
    facts = {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), "threads": 1}
    with tempfile.TemporaryDirectory() as folder:
        model = given.model
        if model is None:
            model, seconds = train(overrides, Path(folder))
            facts["training_cpu_seconds"] = round(seconds)
        candidates, evaluations = rivals(model, digits["sampler"]["teacher"])
        found = compare(candidates, evaluators, images, images.stamp(), given.seed, print)
    rows = found["rows"]
    rows[0]["nfe"] = evaluations  # several at each level
    rows.append(data_floor(evaluators, images, Accelerator(), given.seed))
    show(rows)
    if given.out:
        given.out.write_text(json.dumps({**facts, "stamp": found["stamp"], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
