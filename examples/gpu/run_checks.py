"""The tests of device_tests.py in a process of their own, and some of the project's tests that play whole runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from job import ROOT, Job

HERE = Path(__file__).parent
PROJECT = (  # they leave the device to accelerate, and look at what a run leaves
    "tests/training/test_train.py::test_a_run_leaves_its_products",
    "tests/training/test_train.py::test_an_energy_learns_against_a_chain_that_does_not",
    "tests/training/test_proxy.py::test_a_proxy_keeps_the_best_and_stops_a_run",
    "tests/training/test_density_runs.py::test_a_run_leaves_a_sampler_that_draws_again",
    "tests/training/test_vector_runs.py::test_a_chain_is_evaluated_at_its_own_length_and_at_more",
    "tests/evaluation/test_evaluate.py::test_a_sweep_is_one_table_one_json_and_one_picture",
)
VERDICT = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.M)
REASON = re.compile(r"^E +(.+)$", re.M)


def checks_part(job: Job) -> dict[str, Any]:
    """Run them until they end or the time is over, which ends them."""
    losses = job.work / "losses.json"
    chosen = [str(HERE / "device_tests.py"), *(str(ROOT / test) for test in PROJECT if not job.sizes.tests)]
    options = ["-k", job.sizes.tests] if job.sizes.tests else []
    found = run([*chosen, *options], job.budget.left("checks"), losses)
    return found | {"losses": json.loads(losses.read_text()) if losses.exists() else {}}


def run(arguments: list[str], seconds: float, losses: Path) -> dict[str, Any]:
    """What pytest says of some tests.

    Args:
        arguments: files and options
        seconds: after which it is stopped
        losses: file for the losses that are compared

    Returns:
        ``{passed, skipped, failed, error}``: numbers, the names of those that failed with the first line of why, and
        what is wrong with all, or None
    """
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-v", "--tb=short", "--color=no", *arguments]
    output, stopped = in_time(command, seconds, {**os.environ, "DXMI_LOSSES": str(losses)})
    verdicts = dict(VERDICT.findall(output))
    failed = [name for name, verdict in verdicts.items() if verdict in ("FAILED", "ERROR")]
    reasons = REASON.findall(output)
    count = {verdict: sum(found == verdict for found in verdicts.values()) for verdict in ("PASSED", "SKIPPED")}
    wrong = [f"{len(failed)} failed"] * bool(failed) + ["the rest did not come to its turn"] * stopped
    if not verdicts:
        wrong.append((output.strip().splitlines() or ["no test ran"])[-1])
    return {
        "passed": count["PASSED"],
        "skipped": count["SKIPPED"],
        "failed": failed,
        "reasons": reasons[:10],
        "error": "; ".join(wrong) or None,
    }


def in_time(command: list[str], seconds: float, environment: dict[str, str]) -> tuple[str, bool]:
    """What a command printed, and whether it was stopped after so many seconds."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    try:
        return process.communicate(timeout=max(1.0, seconds))[0], False
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0], True
    finally:
        process.kill()  # also when this part is stopped
