"""examples/gpu: nine_minutes.py from end to end at tiny sizes on the CPU, and what it is made of."""

import ast
import json
import signal
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import pyarrow
import pytest
import torch
from conftest import ROOT
from image_files import flat, png
from pyarrow import parquet
from torch import Generator

sys.path.append(str(ROOT / "examples" / "gpu"))

import nine_minutes
import train_teacher
from budget import Budget, OutOfTime, alarm
from cpu_noise import CpuNoise, differences
from device_tests import (  # noqa: F401  tests too, those that take a second
    full_precision,
    test_a_solver_draws_the_same_images,
    test_drawing_ahead_changes_no_sample,
    test_exact_penalties_go_through_the_teachers_attention,
)
from job import TINY, Sizes
from judge import Judge, likened
from play_games import Speeds, plan
from run_checks import PROJECT, run

from dxmi.pipelines import load_pipeline

NAMES = [*nine_minutes.SHARES]


@pytest.fixture
def no_gpu(monkeypatch):
    """The script sets it; afterwards it is as before."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Forty colour images."""
    path = tmp_path_factory.mktemp("data") / "images.parquet"
    files = [png(flat((k * 6, 255 - k * 6, k * 3), (16, 16))) for k in range(40)]
    parquet.write_table(pyarrow.table({"image": [{"bytes": file, "path": None} for file in files]}), path)
    return path


@pytest.fixture
def script(images, no_gpu, tmp_path):
    """Run the script; its status and report."""

    def script(*options, out="out"):
        given = ["--data", str(images), "--out", str(tmp_path / out), "--device", "cpu", "--minutes", "30", "--tiny"]
        status = nine_minutes.main([*given, *map(str, options)])
        return status, json.loads((tmp_path / out / "report.json").read_text())

    return script


def test_all_of_it_at_tiny_sizes(script, tmp_path):
    """All parts; of the device tests one."""
    status, report = script()
    parts, out = report["parts"], tmp_path / "out"
    assert [*parts] == NAMES and {part["error"] for part in parts.values()} == {None} and status == 0
    assert parts["checks"]["passed"] == 1 and parts["checks"]["failed"] == []
    assert parts["teacher"]["steps"] == parts["t4"]["rounds"] == parts["t1"]["rounds"] == TINY.rounds
    assert parts["evaluate"]["skipped"] == {}
    rows = {(row["name"], row["steps"]): row["metrics"] for row in report["rows"]}
    assert rows.keys() == {("student t4", 4), ("student t1", 1), ("unipc", 2), ("unipc", 4), ("ddim", 5)}
    for metrics in rows.values():
        assert metrics["fd_cifar10"] > 0 and metrics["fd_efficientnet_lite0"] > 0 and metrics["class_tv_floor"] >= 0
    assert report["like"]["student t4 (4 steps)"].keys() >= {"fd_cifar10", "fd_efficientnet_lite0"}
    assert report["versions"]["torch"] == version("torch") and report["machine"]["cores"] >= 1
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    unet = {f"teacher/unet/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")}
    teacher = unet | {"teacher/model_index.json", "teacher/scheduler/scheduler_config.json"}
    assert left == teacher | {"report.json", "curves.png", "grids.png"}
    assert nine_minutes.too_large(out) == {}


def test_a_later_run_goes_on_from_the_teacher(script, tmp_path):
    """Without steps of its own it keeps the weights, as half precision has them."""
    assert script("--parts", "teacher")[0] == 0
    first, folder = load_pipeline(str(tmp_path / "out" / "teacher")).unet, tmp_path / "out" / "teacher"
    status, report = script("--parts", "teacher", "--teacher", folder, out="again")
    assert (status, [*report["parts"]]) == (0, ["teacher"]) and report["parts"]["teacher"]["started_from"] == "teacher"
    second = load_pipeline(str(tmp_path / "again" / "teacher")).unet
    apart = [(a - b).abs().max() for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert 0 < max(apart) < 0.02  # four steps at a rate of at most .001


@pytest.mark.parametrize("failing", [ValueError("no\ncompiler"), OutOfTime("stopped")])
def test_what_cannot_be_compiled_is_trained_without(failing, script, monkeypatch, tmp_path):
    def compiled(network, **options):
        def call(*given):
            raise failing

        return call

    monkeypatch.setattr("torch.compile", compiled)
    compiling = train_teacher.Learner.__init__

    def asked(self, job, *given):
        job.compiled = True
        compiling(self, job, *given)

    monkeypatch.setattr(train_teacher.Learner, "__init__", asked)
    status, report = script("--parts", "teacher")
    assert status == 0 and report["parts"]["teacher"]["steps"] == TINY.steps
    assert report["parts"]["teacher"]["compiled"] == f"no: {type(failing).__name__}: {str(failing).splitlines()[0]}"


def test_a_teacher_that_was_stopped_is_kept(script, monkeypatch, tmp_path):
    def stopped(self, *given):
        raise OutOfTime("stopped")

    monkeypatch.setattr(train_teacher.Learner, "log", stopped)
    status, report = script("--parts", "teacher")
    assert status == 1 and report["parts"]["teacher"]["error"] == "stopped" and report["rows"] == []
    assert load_pipeline(str(tmp_path / "out" / "teacher")).unet.dtype == torch.float32


def test_another_teacher_is_refused_and_the_rest_goes_on(script, teacher):
    status, report = script("--parts", "teacher,pictures", "--teacher", teacher)
    assert status == 1 and "its network is not that of cifar10_gpu_teacher.yaml" in report["parts"]["teacher"]["error"]
    assert report["parts"]["pictures"]["error"] is None


def test_a_part_that_fails_or_hangs_leaves_the_others_alone(tmp_path):
    def slow(job):
        raise OutOfTime("it was stopped")

    def broken(job):
        raise ValueError("no\nsuch thing")

    found = {"broken": broken, "slow": slow, "sound": lambda job: {"answer": 42}}
    job = SimpleNamespace(budget=Budget(60, dict.fromkeys(found, 1.0)), out=tmp_path, rows=[])
    report = {}
    nine_minutes.run_parts(found, job, report)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert [part["error"] for part in report["parts"].values()] == [
        "ValueError: no such thing",
        "OutOfTime: it was stopped",
        None,
    ]
    assert report["parts"]["sound"]["answer"] == 42


def test_what_a_part_leaves_the_next_one_gets():
    now = [100.0]
    budget = Budget(60, {"a": 1.0, "b": 2.0, "c": 3.0}, lambda: now[0])
    assert [budget.left(part) for part in "abc"] == [10, 30, 60]
    now[0] = 104.0  # a was done six seconds early
    assert budget.left("b") == 26
    now[0] = 170.0
    assert budget.left("c") == -10
    with pytest.raises(OutOfTime, match="no time"), budget.limit("c"):
        pass


def test_a_part_that_hangs_is_stopped():
    budget = Budget(0.2, {"a": 1.0, "b": 1.0})
    with pytest.raises(OutOfTime, match="stopped"), budget.limit("a"):
        try:
            time.sleep(60)
        except Exception:
            pytest.fail("taken for an error")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_alarm_inside_another_leaves_it_as_it_was():
    with alarm(60):
        with pytest.raises(OutOfTime), alarm(0.1):
            time.sleep(60)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 60
    with pytest.raises(OutOfTime), alarm(0.1), alarm(60):
        time.sleep(60)


def test_shares_are_of_the_whole():
    assert sum(nine_minutes.SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--parts", "teacher,t3"], "argument --parts: there is no 't3'"),
        (["--parts", ","], "argument --parts: the list is empty"),
        (["--minutes", "0"], "argument --minutes: 0.0 is not positive"),
        (["--teacher", "nowhere"], "argument --teacher: nowhere is no diffusers pipeline"),
        (["--device", "tpu"], "argument --device"),
    ],
)
def test_wrong_options_are_named(options, says, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        nine_minutes.main(["--data", "x", "--out", str(tmp_path / "out"), *options])
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_missing_data_fail_in_one_line(no_gpu, tmp_path):
    given = ["--data", str(tmp_path / "no.parquet"), "--out", str(tmp_path / "out"), "--device", "cpu", "--tiny"]
    assert nine_minutes.main([*given, "--parts", "data"]) == 1
    error = json.loads((tmp_path / "out" / "report.json").read_text())["parts"]["data"]["error"]
    assert error.startswith("ConfigError: data.path") and "\n" not in error


def test_a_plan_fits_into_its_time():
    job, speeds = SimpleNamespace(sizes=Sizes()), Speeds(path=0.001, warm=0.02, round=0.25)
    for seconds in (20.0, 60.0, 600.0):
        found = plan(seconds, speeds, job)
        assert 0.7 * seconds < found.paths * 0.001 + found.warm * 0.02 + found.rounds * 0.25 < 0.9 * seconds
    assert min(plan(-5.0, speeds, job)) >= 8  # a few, so that there is something to keep
    assert plan(600.0, speeds, SimpleNamespace(sizes=TINY)) == (TINY.paths, TINY.rounds, TINY.rounds)


def test_what_a_row_takes_is_told_by_those_before():
    judge = object.__new__(Judge)
    judge.times = [(10, 100.0)]
    assert judge.expects(50) == 0  # the first also reads the reference
    judge.times.append((4, 5.0))
    assert judge.expects(9) == 10
    judge.times.append((2, 3.0))
    assert judge.expects(50) == pytest.approx(51)


def test_rows_say_how_many_steps_of_a_solver_they_are_like():
    rows = [("student", 4, 2.0), ("unipc", 2, 8.0), ("unipc", 4, 4.0), ("unipc", 6, 1.0)]
    rows = [{"name": name, "steps": k, "metrics": {"fd_a": fd, "fd_a_floor": 9.0, "x": 1.0}} for name, k, fd in rows]
    assert likened(rows, "unipc") == {"student (4 steps)": {"fd_a": "5 steps"}}
    assert likened(rows[:1], "unipc") == {}


def test_noise_is_the_cpus_wherever_it_is_asked_for():
    """A device without numbers, meta, shows where noise comes from: the CPU's generator has moved on."""
    like = torch.empty(3, 2)
    for draw in (torch.rand, torch.randn):
        torch.manual_seed(0)
        with CpuNoise():
            found = [
                draw(3, 2, device="meta"),
                getattr(torch, f"{draw.__name__}_like")(like),
                draw((2,), generator=None),
            ]
        torch.manual_seed(0)
        wanted = [draw(3, 2), draw(3, 2), draw(2)]
        assert found[0].device.type == "meta"
        assert torch.equal(found[1], wanted[1]) and torch.equal(found[2], wanted[2])
    with CpuNoise():
        own = torch.randn(3, generator=Generator().manual_seed(1))
    assert torch.equal(own, torch.randn(3, generator=Generator().manual_seed(1)))


def test_differences_of_losses_are_relative_and_the_largest():
    one, other = [{"a": 1.0, "b": 0.0}, {"a": 2.0, "b": 1e-6}], [{"a": 1.0, "b": 0.0}, {"a": 1.9, "b": 3e-6}]
    assert differences(one, other) == pytest.approx({"a": 0.05, "b": 0.002})
    with pytest.raises(ValueError, match="other figures"):
        differences(one, other[:1])
    with pytest.raises(ValueError, match="other figures"):
        differences(one, [{"a": 1.0}, {"a": 2.0}])


def test_the_projects_tests_that_are_run_on_the_device_exist():
    for test in PROJECT:
        path, _, name = test.partition("::")
        assert name in {getattr(node, "name", "") for node in ast.parse((ROOT / path).read_text()).body}, test


@pytest.mark.process
def test_what_pytest_says_is_counted(tmp_path):
    file = tmp_path / "small_tests.py"
    file.write_text(
        "import time\nimport pytest\n\ndef test_a():\n    pass\n\n@pytest.mark.skip\ndef test_b():\n    pass\n\n"
        "def test_c():\n    assert 1 == 2, 'not equal'\n\ndef test_d():\n    time.sleep(100)\n"
    )
    found = run([str(file), "-k", "not test_d"], 60, tmp_path / "losses.json")
    assert (found["passed"], found["skipped"], found["error"]) == (1, 1, "1 failed")
    assert found["failed"][0].endswith("::test_c") and found["reasons"][0].startswith("AssertionError: not equal")
    assert run([str(tmp_path / "none.py")], 60, tmp_path)["error"].startswith("ERROR: file or directory not found")


@pytest.mark.process
def test_tests_are_stopped_in_time(tmp_path):
    file = tmp_path / "small_tests.py"
    file.write_text("import time\n\ndef test_d():\n    time.sleep(100)\n")
    assert "the rest did not come to its turn" in run([str(file)], 0.1, tmp_path)["error"]
