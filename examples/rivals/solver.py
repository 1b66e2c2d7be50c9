"""The unchanged teacher under a solver of diffusers', measured as students are: what nobody has to train.

    python examples/rivals/solver.py --solver teacher-unipc --steps 4 --seed 0 --out runs/unipc

The solvers are those that ``dxmi train`` compares a student with.
"""

from __future__ import annotations

from common import Match
from measuring import in_one_line, judge_of, parser, task_of, write

from dxmi.api.errors import require


def main() -> None:
    """The command."""
    options = parser(__doc__, leave_out=("seconds", "batch", "ema"))
    options.add_argument("--solver", default="teacher-unipc", help="one that dxmi train compares students with")
    given = options.parse_args()
    with in_one_line():
        task = task_of(given)
        judge = judge_of(task)
        solvers = Match(task).student.rivals()
        require(given.solver in solvers, "solver", f"there is no '{given.solver}'", f"there are {', '.join(solvers)}")
        write(given.out, task, {"seconds": 0.0, "rounds": 0, "settings": {}}, solvers[given.solver], judge)


if __name__ == "__main__":
    main()
