"""How many steps of a solver a row is like, and floors that a difference is lost in."""

import json
import math
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator
from conftest import DIGITS, EXTRACTOR, ROOT
from dxmi_plugins.evaluators.fidelity.evaluator import Fidelity
from rich.console import Console

import dxmi
from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig
from dxmi.evaluation import card_figures, draw_candidate, measure
from dxmi.evaluation.headline import Like, headlines, in_question, likened, rounded_up, steps_like, too_coarse
from dxmi.evaluation.report import Report
from dxmi.evaluation.stored_images import images
from dxmi.evaluation.tables import cells, report_table

TEACHER = ROOT / "examples" / "teachers" / "digits"


def row(name, steps, fd, n=1000, **more):
    return {"name": name, "steps": steps, "nfe": steps, "samples": n, "metrics": {"fd_digits": fd, **more}}


# Steps


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (8.0, "2 steps"),  # as good as the fewest
        (9.0, "<2 steps"),
        (4.0, "3 steps"),
        (math.sqrt(8 * 4), "2.5 steps"),  # half of the way in the logarithm
        (1.0, "6 steps (measured at 3 and 6)"),
        (2.0, "4.5 steps (measured at 3 and 6)"),
        (0.5, "8 steps"),
        (0.1, ">10 steps"),
    ],
)
def test_steps_are_interpolated_in_the_logarithm(distance, expected):
    """At 7 steps the solver is worse than at 6: from there the line starts at what it had."""
    solver = {2: 8.0, 6: 1.0, 3: 4.0, 7: 3.0, 8: 0.5, 10: 0.4}
    assert str(steps_like(distance, solver)) == expected


def test_more_steps_that_are_worse_do_not_count():
    found = steps_like(math.sqrt(0.5), {6: 1.0, 7: 3.0, 8: 0.5})
    assert found == Like(pytest.approx(7.5), (7, 8))


def test_the_best_solver_is_the_one_that_needs_the_fewest_steps():
    ddim, unipc = [row("ddim", k, 8 / k) for k in (2, 4, 8)], [row("unipc", k, 8 / k**2) for k in (2, 4)]
    student, *rest = likened(
        [row("student", 1, 1.0), *ddim, *unipc, row("euler", 4, 0.01), row("data-floor", None, 0.1)]
    )
    like = student["steps_like"]
    assert (like["solver"], like["metric"], like["bound"]) == ("unipc", "fd_digits", "")
    assert like["between"] == (2, 4) and like["steps"] == pytest.approx(3)
    assert all("steps_like" not in other for other in rest)  # one row is no curve, and the data have no steps
    assert headlines([student]) == ["student (1 steps) is like 3 steps of unipc, by fd_digits"]


def test_a_student_at_the_ends():
    """The solver that beats it in two steps is the best; where none is as good, there are not enough."""
    rows = [row("ddim", 2, 6.0), row("ddim", 4, 5.0), row("unipc", 2, 2.0), row("unipc", 4, 0.5)]
    worse, better = (likened([row("student", 4, distance), *rows])[0] for distance in (5.5, 0.4))
    assert headlines([worse]) == ["student (4 steps) is like <2 steps of unipc, by fd_digits"]
    assert better["steps_like"]["bound"] == ">" and better["steps_like"]["steps"] == 4
    assert headlines([better]) == ["student (4 steps) is like >4 steps of unipc, by fd_digits"]  # ddim is further off


@pytest.mark.parametrize("metrics", [{"recall": 0.5}, {"fd_digits": -0.01}])
def test_rows_without_a_positive_distance_are_like_nothing(metrics):
    rows = [{**row("student", 4, 1.0), "metrics": metrics}, row("unipc", 2, 2.0), row("unipc", 4, 0.5)]
    assert likened(rows) == rows


# Floors


def test_a_floor_that_hides_a_difference_says_how_many_samples_would_do():
    """Twice the floor of 1,000 samples, .3, is 4 times the difference, .15: four times as many."""
    student, best = row("student", 4, 0.45, fd_digits_floor=0.3), row("unipc", 10, 0.3)
    rows = [student, row("unipc", 4, 0.9), best, row("data-floor", None, 0.01)]
    assert too_coarse(rows, "data-floor") == [
        "fd_digits: the floor of 1,000 samples, 0.3, is above half of the difference between student (4 steps) and "
        "unipc (10 steps), 0.15; about 4,000 would do"
    ]
    assert too_coarse([row("student", 4, 0.95, fd_digits_floor=0.3), best], "data-floor") == []
    assert too_coarse([student], "data-floor") == too_coarse([row("a", 4, 0.1), best], "data-floor") == []
    equal = too_coarse([student, row("other", 4, 0.45)], "data-floor")
    assert equal[0].endswith("0; they are equal")


def test_what_is_in_question_are_the_solvers_two():
    rows = [row("student", 4, 1.5), row("unipc", 2, 4.0), row("unipc", 3, 2.0), row("unipc", 4, 1.0)]
    assert in_question(likened(rows)) == rows[2:]
    better = [row("student", 4, 0.5), *rows[1:]]
    assert in_question(likened(better))[0]["steps_like"]["bound"] == ">" and len(in_question(likened(better))) == 4
    assert in_question(rows) == rows


def test_numbers_of_samples_are_rounded_up_to_two_digits():
    assert [rounded_up(x) for x in (3, 41, 401, 4000, 12345.6)] == [3, 41, 410, 4000, 13000]


# Tables


def test_floors_are_a_row_of_tables_and_figures_of_the_report():
    student = row("student", 4, 0.2, fd_digits_floor=0.05, fd_digits_floor_std=0.01, class_share_min=0.9, recall=0.5)
    rows = likened([student, row("unipc", 2, 0.4), row("unipc", 3, 0.1)])
    report = Report([r | {"spread": {}, "minimum": {}} for r in rows], {})
    assert cells(rows)[0] == ["", "steps", "n", "fd_digits_1k", "recall"]
    assert cells(rows)[-1] == ["data drawn again", "", "1000", "0.05", ""]
    said = "student (4 steps) is like 2.5 steps of unipc, by fd_digits"
    assert report.table().splitlines()[-1] == said and said in card_figures({"rows": rows, "stamp": {}})
    console = Console(width=100)
    with console.capture() as shown:
        console.print(report_table(rows))
    assert (
        said in " ".join(shown.get().split())
        and json.loads(report.to_json())["rows"][0]["metrics"]["fd_digits_floor"] == 0.05
    )


# A run


@pytest.fixture
def run(tmp_path):
    """Its student is the teacher itself under its own scheduler."""
    folder = tmp_path / "run"
    folder.mkdir()
    sampler = {"name": "diffusion", "teacher": str(TEACHER), "scheduler": {"name": "ancestral", "steps": 4}}
    config = {"data": {"path": str(DIGITS)}, "energy": {"name": "conv", "width": 4}, "sampler": sampler}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    (folder / "pipeline").symlink_to(TEACHER)
    return folder


ASKED = {"extractor": str(EXTRACTOR), "metrics": ["fid"], "n": 80, "seeds": [0], "floor": None}


def test_a_run_is_held_against_its_teachers_solver_until_that_is_as_good(run, tmp_path, capsys):
    drawn = ["--steps", "5", "--metrics", "fid", "-n", "80", "--seeds", "0", "--floor", "none"]
    where = ["--reference", str(DIGITS), "--extractor", str(EXTRACTOR), "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(run), *where, *drawn, "--steps-like", "unipc"]) == 0
    first, *solver = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    found = [(r["name"], r["steps"]) for r in solver]
    assert found == [("teacher-unipc", k) for k in (2, 3, 4, 5, 6, 7, 8, 10)[: len(found)]] and len(found) < 8
    distances = [r["metrics"]["fd_digits"] for r in solver]
    assert distances[-1] <= first["metrics"]["fd_digits"] < min(distances[:-1])
    like = first["steps_like"]
    assert like["solver"] == "teacher-unipc" and like["between"] == [solver[-2]["steps"], solver[-1]["steps"]]
    assert "of teacher-unipc, by fd_digits" in " ".join(capsys.readouterr().out.split())
    before = (tmp_path / "out" / "report.json").read_bytes()
    assert main(["evaluate", str(run), *where, *drawn, "--steps-like", "teacher-unipc"]) == 0
    assert (tmp_path / "out" / "report.json").read_bytes() == before


def test_the_solver_is_the_rival_of_training(run):
    """The same teacher, the same seeds and the same settings, so the same figure."""
    report = dxmi.evaluate(run, DIGITS, steps=[1], steps_like="ddim", **ASKED)
    built = Checked(TrainConfig, yaml.safe_load((Path(run) / "run.yaml").read_text())).build()
    draw = built.sampler.eval().rivals()["teacher-ddim"]
    candidate = draw_candidate(draw, "x", 2, 2, Accelerator())
    judge = Fidelity(extractor=str(EXTRACTOR), metrics=["fid"], samples=80)
    own = measure([judge], images(str(DIGITS), "reference"), candidate.samples(0))["metrics"]
    assert report.rows[1]["metrics"] == pytest.approx(own, rel=1e-6)


@pytest.mark.parametrize(
    ("source", "given", "says"),
    [
        ("run", {"steps_like": "heun"}, "steps_like: the teacher has no solver 'heun'; it has ddim, dpmsolver"),
        (TEACHER, {"steps_like": "unipc"}, "steps_like: what is measured is no run, so it has no teacher"),
        (DIGITS, {"steps_like": "unipc", "steps": []}, "steps_like: what is measured is no run"),
        (
            "run",
            {"steps_like": "unipc", "metrics": ["kid"]},
            "steps_like: it goes by a Fréchet distance; take fid into",
        ),
        ("run", {"steps_like": 4}, "steps_like: 4 is no name of a solver"),
    ],
)
def test_what_cannot_be_held_against_a_solver_is_one_line(source, given, says, run):
    with pytest.raises(ConfigError, match=f"^{says}"):
        dxmi.evaluate(
            run if source == "run" else source,
            DIGITS,
            **{"steps": [2], **ASKED, **given} | ({"seeds": []} if source == DIGITS else {}),
        )
