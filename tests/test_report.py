"""Reports: figures over seeds, names that say how many samples they are of, and comparing only what is alike."""

import json

import pytest

from dxmi.api import ConfigError
from dxmi.cli import main
from dxmi.report import Report, compared, load_report, over_seeds


def row(name="DDIM", steps=4, samples=10_000, **metrics):
    seeds = metrics or {"fid": [3.0, 5.0, 4.0], "kid_mean": [0.1, 0.1, 0.1], "kid_std": [0.0, 0.0, 0.0]}
    found = {i: {"samples": samples, "metrics": {m: v[i] for m, v in seeds.items()}} for i in range(3)}
    return over_seeds(name, steps, steps, found)


def floor(fid=1.0):
    return over_seeds("data-floor", None, None, {None: {"samples": 10_000, "metrics": {"fid": fid}}})


STAMP = {"evaluators": [{"extractor": "inception"}], "reference": {"name": "a", "sha256": "0"}, "seed": [0, 1, 2]}


def test_mean_spread_and_minimum_over_seeds():
    found = row()
    assert found["metrics"]["fid"] == 4 and found["spread"]["fid"] == 1 and found["minimum"]["fid"] == 3
    assert found["seeds"]["1"]["fid"] == 5
    assert not floor()["spread"] and not floor()["seeds"]


def test_the_table_names_the_number_of_samples():
    table = Report([row(), floor()], STAMP).table().splitlines()
    assert table[0] == "|  | steps | nfe | fid_10k | kid |"
    assert table[2] == "| DDIM | 4 | 4 | 4 ±1 (3) | 0.1 ±0 (0.1) |"
    assert table[3] == "| data-floor |  |  | 1 |  |"
    assert "| fid |" in Report([row(samples=50_000)], STAMP).table()


def test_the_picture_has_a_line_for_each_solver_and_the_floor():
    report = Report([row(steps=4), row(steps=10), row("UniPC", 4), floor()], STAMP)
    axes = report.plot().axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_ylabel() == "fid_10k"
    labels = axes.get_legend_handles_labels()[1]
    assert sorted(labels) == ["DDIM", "UniPC", "data-floor"]
    with pytest.raises(ConfigError, match="picture: no row"):
        Report([floor()], STAMP).plot()


def test_what_is_saved_is_read_again(tmp_path):
    report = Report([row(), floor()], STAMP)
    written = report.save(tmp_path / "out")
    assert [path.name for path in written] == ["report.json", "table.md", "picture.png"]
    assert load_report(written[0]) == report
    assert report.table() in written[1].read_text() and '"sha256": "0"' in written[1].read_text()


def test_reports_are_compared_only_if_made_alike(tmp_path, capsys):
    Report([row()], STAMP).save(tmp_path / "a")
    Report([row(fid=[2.0, 2.0, 2.0])], STAMP).save(tmp_path / "b")
    other = {**STAMP, "reference": {"name": "a", "sha256": "1"}}
    Report([row(samples=2000)], other).save(tmp_path / "c")
    a, b, c = (str(tmp_path / name / "report.json") for name in "abc")
    assert main(["evaluate", "--compare", a, b]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:1] for line in shown.splitlines() if "±" in line and "(" in line][:2] == [["a:"], ["b:"]]
    assert "4 ±1 (3)" in shown and "2 ±0 (2)" in shown and shown.count("fid_10k") == 1
    assert main(["evaluate", "--compare", a, c]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "reference.sha256: 0 -> 1" in told and "samples: 10000 -> 2000" in told
    (tmp_path / "d.json").write_text(json.dumps({"rows": []}))
    for bad in ("d.json", "none.json"):
        with pytest.raises(ConfigError, match=f"--compare: .*{bad} holds no report"):
            compared(tmp_path / "a" / "report.json", tmp_path / bad)
