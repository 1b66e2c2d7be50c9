"""CPU-seconds until a four-step digits student is better than its teacher with fifty DDIM steps.

dxmi's defaults (configs/digits_td.yaml, averaged weights) against the paper's settings (no average, Adam (.9, .999),
all T transitions in turn, its learning rates times 1, 10 and 100), with the same networks, data and nodes, in one run.
Only the rounds are timed; the distance is measured every few rounds, outside the clock. The paper's settings may use
``--patience`` times the CPU-seconds that dxmi needed.

    python examples/benchmarks/time_to_quality.py --out examples/benchmarks/time_to_quality.json
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from accelerate.utils import set_seed

from dxmi.api import Draw
from dxmi.chains import SamplerDraw
from dxmi.config import Checked, RatesConfig, TrainConfig, read_yaml
from dxmi.config.yaml_files import put
from dxmi.evaluation import Candidate, draw_candidate, measure, stamp
from dxmi.training.session import Session
from dxmi.training.train import play_round

CONFIG = Path(__file__).parents[2] / "configs" / "digits_td.yaml"
SEED = 123  # of the samples that distances are measured with
PAPER = RatesConfig(sampler=1e-7, energy=1e-5, std=1e-5)
PAPER_GAME = {"tau1": 0.1, "tau2": 0.01, "gamma": 1.0, "avr": 0.99, "time_cost": 1.0, "warmup": 0, "sweep": True}


def settings(scale: int | None, seed: int) -> Checked[TrainConfig]:
    """The defaults of dxmi, or the paper's settings with their learning rates times ``scale``."""
    config = read_yaml(CONFIG) | {"seed": seed, "tracker": None}
    put(config, ["evaluators", "0", "metrics"], ["fid"])
    if scale is not None:
        paper = {key: rate * scale for key, rate in vars(PAPER).items() if rate is not None}
        config |= {"lr": paper, "betas": [0.9, 0.999], "game": PAPER_GAME}
        config["ema"] = 0.0  # an average that forgets all is no average
    return Checked(TrainConfig, config)


def session(scale: int | None, seed: int) -> Session:
    """The players of a run, with nothing written."""
    checked = settings(scale, seed)
    set_seed(seed)
    return Session(checked, Path("unused"))


def candidate(of: Session, name: str, steps: int, draw: Draw) -> Candidate:
    """A row to measure."""
    return draw_candidate(draw, name, steps, steps, of.accelerator)


def distance(of: Session, row: Candidate) -> float:
    """Fréchet distance of as many samples as there are images."""
    return measure(of.run.evaluators, of.data, row.samples(SEED))["metrics"]["fd_digits"]


def race(of: Session, target: float, every: int, budget: float) -> dict:
    """Play until the student is below ``target`` or the rounds have used ``budget`` CPU-seconds."""
    seconds, path = 0.0, []
    while seconds < budget:
        for _ in range(every):
            start = time.process_time()
            play_round(of)
            seconds += time.process_time() - start
        student = candidate(of, "student", of.run.sampler.steps, SamplerDraw(of.average(), of.shape))
        found = distance(of, student)
        path.append({"rounds": of.game.rounds, "cpu_seconds": round(seconds, 1), "fd": round(found, 4)})
        print(json.dumps(path[-1]), flush=True)
        if found < target:
            return {"reached_after": round(seconds, 1), "rounds": of.game.rounds, "path": path}
    return {"reached_after": None, "rounds": of.game.rounds, "best": min(p["fd"] for p in path), "path": path}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patience", type=float, default=10, help="CPU time of the paper's settings over dxmi's")
    parser.add_argument("--scales", type=int, nargs="+", default=[100, 10, 1])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=25, help="rounds between measurements")
    parser.add_argument("--budget", type=float, default=600, help="most CPU-seconds for dxmi")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)  # CPU-seconds of two threads count twice

    ours = session(None, given.seed)
    teacher = candidate(ours, "teacher-ddim", 50, ours.run.sampler.rivals()["teacher-ddim"])
    target = distance(ours, teacher)
    print(f"teacher, DDIM, 50 steps: {target:.4f}")
    facts = {"target_fd": target, "patience": given.patience, "seed": given.seed, "threads": 1}
    facts |= {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    facts["stamp"] = stamp([teacher], ours.run.evaluators, ours.data.stamp(), SEED, len(ours.data))

    def keep() -> None:
        if given.out:
            given.out.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")

    results = {"dxmi": race(ours, target, given.every, given.budget)}
    keep()
    own = results["dxmi"]["reached_after"]
    for scale in given.scales if own else []:
        print(f"the paper's settings, rates times {scale}")
        results[f"paper_x{scale}"] = race(session(scale, given.seed), target, given.every, given.patience * own)
        keep()
    for name, result in results.items():
        reached = result["reached_after"]
        ratio = f"{reached / own:.1f} times dxmi's" if reached and own else f"best {result.get('best')}"
        print(f"{name}: {f'{reached} CPU-s' if reached else 'never'} ({ratio})")


if __name__ == "__main__":
    main()
