"""The game of this repository, timed and measured as its rivals are.

    python examples/rivals/ours.py --steps 4 --seed 0 --out runs/ours

It plays ``dxmi train`` of ``configs/digits_t4.yaml`` and the like, whose rounds say when it ends; its CPU-seconds, with
the warm start and all else, are what rivals are then given.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from common import EXAMPLES
from measuring import in_one_line, judge_of, parser, pipeline_draw, task_of, write

import dxmi


def main() -> None:
    """The command."""
    options = parser(__doc__, leave_out=("seconds", "teacher", "data", "batch", "ema"))
    options.add_argument("--config", type=Path, help="of the run; configs/digits_tT.yaml for T steps where left out")
    options.add_argument("--rounds", type=int, help="in place of the config's")
    given = options.parse_args()
    with in_one_line():
        task = task_of(given)
        judge = judge_of(task)
        torch.set_num_threads(1)
        start = time.process_time()
        config = given.config or EXAMPLES.parent / "configs" / f"digits_t{task.steps}.yaml"
        more = {} if given.rounds is None else {"steps": given.rounds}
        run = dxmi.train(config, given.out / "run", seed=task.seed, evaluators=[], tracker=None, **more)
        seconds = time.process_time() - start
        facts = {"seconds": round(seconds, 1), "rounds": run.config["steps"], "settings": {}}
        write(given.out, task, facts, pipeline_draw(run.pipeline_folder), judge)


if __name__ == "__main__":
    main()
