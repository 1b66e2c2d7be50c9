"""Reports: figures over seeds, names that say how many samples they are of, and comparing only what is alike."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from conftest import DIGITS, EXTRACTOR
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from rich.console import Console

from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.config import DataConfig
from dxmi.data import Crops, Vectors, load_images
from dxmi.evaluation.earlier_reports import compared, earlier, joined, load_report
from dxmi.evaluation.measure import data_floor
from dxmi.evaluation.report import Report, over_seeds
from dxmi.evaluation.tables import cells, markdown, report_table


def row(name="DDIM", steps=4, samples=10_000, **metrics):
    seeds = metrics or {"fid": [3.0, 5.0, 4.0], "kid_mean": [0.1, 0.1, 0.1], "kid_std": [0.0, 0.0, 0.0]}
    found = {i: {"samples": samples, "metrics": {m: v[i] for m, v in seeds.items()}} for i in range(3)}
    return over_seeds(name, steps, steps, found) | {"subject": {"pipeline": "0", "prompts": []}}


def floor(fid=1.0):
    return over_seeds("data-floor", None, None, {None: {"samples": 899, "metrics": {"fid": fid}}})


def of_a_run(name="student", nfe=None):
    """A row as ``dxmi train`` writes it."""
    return {"name": name, "steps": 4, "nfe": nfe, "samples": 1797, "metrics": {"fd_digits": 0.12345, "recall": 0.5}}


STAMP = {
    "evaluators": [{"extractor": "inception"}],
    "reference": {"name": "a", "sha256": "0"},
    "samples": 10_000,
    "seed": [0, 1, 2],
    "prompts": ["a cat"],
}


# Rows and tables


def test_mean_spread_and_minimum_over_seeds():
    found = row()
    assert found["metrics"]["fid"] == 4 and found["spread"]["fid"] == 1 and found["minimum"]["fid"] == 3
    assert found["seeds"]["1"]["fid"] == 5
    assert not floor()["spread"] and not floor()["seeds"]


def test_every_row_tells_its_number_of_samples():
    lines = Report([row(), floor(1.2345)], STAMP).table().splitlines()
    assert lines[0] == "|  | steps | n | fid_10k | kid |"
    assert lines[2] == "| DDIM | 4 | 10000 | 4 ±1 (3) | 0.1 ±0 (0.1) |"
    assert lines[3] == "| data-floor |  | 899 | 1.23 |  |"
    assert "| fid |" in markdown([row(samples=50_000)]) and "| fid_49.9k |" in markdown([row(samples=49_999)])


def test_a_row_of_fewer_samples_says_so_below_a_heading_of_enough():
    lines = markdown([row(samples=50_000), floor(1.2345)]).splitlines()
    assert lines[0] == "|  | steps | n | fid | kid |"
    assert lines[2] == "| DDIM | 4 | 50000 | 4 ±1 (3) | 0.1 ±0 (0.1) |"
    assert lines[3] == "| data-floor |  | 899 | fid_0.899k: 1.23 |  |"


def test_calls_of_the_network_are_told_where_they_are_not_the_steps():
    assert markdown([of_a_run()]).splitlines()[::2] == [
        "|  | steps | n | fd_digits_1.8k | recall |",
        "| student | 4 | 1797 | 0.123 | 0.5 |",
    ]
    assert markdown([of_a_run(), of_a_run("teacher", 8)]).splitlines()[3] == "| teacher | 4 | 8 | 1797 | 0.123 | 0.5 |"


def test_a_narrow_screen_cuts_no_figure():
    names = ("fd_digits", "kd_digits_mean", "is_digits_mean", "precision", "recall")
    wide = {name: [0.12341 + k, 0.1, 0.2] for k, name in enumerate(names)}
    rows = [row("DPMSolverMultistep", **wide), floor()]
    console = Console(file=StringIO(), width=80)
    console.print(report_table(rows))
    shown = console.file.getvalue()
    assert {word for line in cells(rows)[1:] for cell in line[1:] for word in cell.split()} <= set(shown.split())
    assert "mean ±standard deviation over seeds (minimum)" in shown and "fd, fid, kd, kid: lower is better" in shown


# What is saved


def test_the_picture_has_a_line_for_each_solver_and_the_floor():
    report = Report([row(steps=4), row(steps=10), row("UniPC", 4), floor()], STAMP)
    axes = report.plot().axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_ylabel() == "fid_10k, n=10000"
    labels = axes.get_legend_handles_labels()[1]
    assert sorted(labels) == ["DDIM", "UniPC", "data-floor, n=899"]
    with pytest.raises(ConfigError, match="picture: no row"):
        Report([floor()], STAMP).plot()


def test_what_is_saved_is_read_again(tmp_path):
    report = Report([row(), floor()], STAMP)
    written = report.save(tmp_path / "out")
    assert [path.name for path in written] == ["report.json", "table.md", "picture.png"]
    assert load_report(written[0]) == report
    assert report.table() in written[1].read_text() and '"sha256": "0"' in written[1].read_text()


def test_saving_leaves_whole_files_and_no_picture_of_before(tmp_path, monkeypatch):
    report = Report([row(), floor()], STAMP)
    report.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(OSError, match="no space"):
        report.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    Report([floor()], STAMP).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "table.md"}


def test_a_folder_keeps_to_what_it_measured(tmp_path):
    """More steps than before go; another pipeline, fewer rows or a broken file do not."""
    earlier(tmp_path, [row()], STAMP)
    Report([row(), row(steps=10), floor()], STAMP).save(tmp_path)
    earlier(tmp_path, [row(), row(steps=10), row(steps=50), row("UniPC")], STAMP)
    other = row(steps=10) | {"subject": {"pipeline": "1", "prompts": []}}
    for rows, says in (([row(), other], "another subject"), ([row()], "left out")):
        with pytest.raises(
            ConfigError, match=rf"^out: .* holds a report of something else \(DDIM, 10 steps: {says}\); give"
        ):
            earlier(tmp_path, rows, STAMP)
    spread = (
        '{"rows": [{"name": "a", "steps": 1, "samples": 2, "metrics": {"fid": 1}, "spread": {"fid": 1}}], "stamp": {}}'
    )
    for text in ("{", "{}", "[]", '{"rows": [1], "stamp": {}}', spread):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ConfigError, match="^out: .*report.json holds no report"):
            earlier(tmp_path, [row()], STAMP)


def test_figures_of_before_stay_beside_others_that_were_made_alike():
    kid = {"kid_mean": [0.1, 0.2, 0.6]}
    old, new = Report([row(fid=[3.0, 5.0, 4.0]), floor(2.0)], STAMP), Report([row(**kid), row("UniPC", **kid)], STAMP)
    both, other = joined(new, old).rows
    assert both == json.loads(json.dumps(row(fid=[3.0, 5.0, 4.0], **kid))) and other == new.rows[1]
    again = Report([row(fid=[1.0, 1.0, 1.0]), floor(1.0)], STAMP)
    assert joined(again, old).rows == again.rows
    assert joined(new, Report(old.rows, {**STAMP, "torch": "2.0"})) is new
    fewer = Report([row(samples=2000, **kid)], STAMP)
    assert joined(fewer, old).rows == fewer.rows


def test_reports_are_compared_only_if_made_alike(tmp_path, capsys):
    Report([row()], STAMP).save(tmp_path / "a")
    Report([row(fid=[2.0, 2.0, 2.0])], STAMP).save(tmp_path / "b")
    other = {**STAMP, "reference": {"name": "a", "sha256": "1"}, "samples": 2000}
    Report([row(samples=2000)], other).save(tmp_path / "c")
    Report([row()], {**STAMP, "prompts": ["a dog"]}).save(tmp_path / "d")
    a, b, c, d = (str(tmp_path / name / "report.json") for name in "abcd")
    assert main(["evaluate", "--compare", a, b]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:2] for line in shown.splitlines() if "±" in line and "DDIM" in line] == [
        ["a:", "DDIM"],
        ["b:", "DDIM"],
    ]
    assert "4 ±1 (3)" in shown and "2 ±0 (2)" in shown and shown.count("fid_10k") == 1
    assert main(["evaluate", "--compare", a, c]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "reference.sha256: 0 -> 1" in told and "samples: 10000 -> 2000" in told
    assert main(["evaluate", "--compare", a, d]) == 2
    assert "prompts.0: a cat -> a dog" in capsys.readouterr().err
    (tmp_path / "d.json").write_text(json.dumps({"rows": []}))
    for bad in ("d.json", "none.json"):
        with pytest.raises(ConfigError, match=f"^compare: .*{bad} holds no report"):
            compared(tmp_path / "a" / "report.json", tmp_path / bad)


@pytest.mark.parametrize(
    ("given", "called"),
    [
        (("x/report.json", "y/report.json"), ["x: DDIM", "y: DDIM"]),
        (("x", "y"), ["x: DDIM", "y: DDIM"]),
        (("x/in", "y/in"), ["x: DDIM", "y: DDIM"]),
        (("x/in/report.json", "y/in/report.json"), ["x/in/report.json: DDIM", "y/in/report.json: DDIM"]),
    ],
)
def test_compared_rows_are_told_apart(given, called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("x", "y", "x/in", "y/in"):
        Report([row()], STAMP).save(Path(folder))
    assert [found["name"] for found in compared(*map(Path, given)).rows] == called


def stamped(folder, **made):
    Report([row()], {**STAMP, **made}).save(folder)
    return folder / "report.json"


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        ({"seed": []}, None),  # stored images
        ({"seed": 0}, None),  # a run's
        ({"seed": 1}, "seed.0: 0 -> 1"),
        ({"seed": [0, 1]}, r"seed: \[0\] -> \[0, 1\]"),
        ({"noise": []}, None),
        ({"noise": ["each chunk of 256 samples"]}, None),
        ({"evaluators": [{"extractor": "inception", "k": 5}]}, "evaluators.0.k: None -> 5"),
    ],
)
def test_noise_may_differ_and_seeds_only_where_both_have_some(other, differing, tmp_path):
    paths = [
        stamped(tmp_path / name, **{"seed": [0], "noise": ["each sample"], **made})
        for name, made in (("a", {}), ("b", other))
    ]
    if differing is None:
        assert len(compared(*paths).rows) == len(compared(*paths[::-1]).rows) == 2
    else:
        with pytest.raises(ConfigError, match=f"^compare: the two were not made alike: {differing}$"):
            compared(*paths)


# The floor


def test_halves_are_disjoint_and_are_all():
    whole = [torch.full((1, 4, 6), i, dtype=torch.uint8) for i in range(7)]
    vectors, crops = Vectors(torch.arange(7.0)[:, None], "x", torch.arange(7)), Crops(whole, 2, "x", list("abcdefg"))
    for items, values in ((vectors, vectors.stored.flatten()), (crops, crops.stored[:, 0, 0, 0])):
        halves = [items.half(k, seed=3) for k in (0, 1)]
        assert [len(half) for half in halves] == [4, 3] and {half.event_shape for half in halves} == {items.event_shape}
        found = torch.cat([half.stored.flatten(1)[:, 0] for half in halves])
        assert found.tolist() != values.tolist() and sorted(found.tolist()) == values.tolist()
        known = [about for half in halves for about in half.about]
        assert known == [items.about[int(i)] for i in found]
    assert vectors.half(0, 3).fingerprint == vectors.half(0, 3).fingerprint != vectors.half(0, 4).fingerprint


def test_the_floor_is_one_half_against_the_other():
    class Both:
        def __call__(self, draw, reference):
            self.seen = torch.cat([draw(9), reference[:]]).flatten().tolist()
            return {"found": 1.0}

    judge = Both()
    found = data_floor([judge], Vectors(torch.arange(9.0)[:, None], "x"), Accelerator(), seed=1)
    assert sorted(judge.seen) == list(range(9)) and judge.seen != sorted(judge.seen)
    assert found == {"name": "data-floor", "steps": None, "nfe": None, "samples": 5, "metrics": {"found": 1.0}}


def test_random_halves_of_the_digits_are_no_distance_apart():
    """The unbiased kernel distance averages to 0 over splits, which even rows against odd ones, by like hands, miss."""
    features = make_extractor(str(EXTRACTOR))(load_images(DataConfig(path=str(DIGITS))).pixels)[0].double()
    kernel = (features @ features.T / features.shape[1] + 1) ** 3
    rows = torch.arange(len(features))

    def within(a):
        own = kernel[a][:, a]
        return (own.sum() - own.diag().sum()) / (len(a) * (len(a) - 1))

    def distance(a, b):
        return within(a) + within(b) - 2 * kernel[a][:, b].mean()

    items = Vectors(rows[:, None].float(), "rows of the digits")
    found = torch.stack([distance(*(items.half(k, seed)[:, 0].long() for k in (0, 1))) for seed in range(20)])
    error = found.std() / 20**0.5
    assert abs(found.mean()) < 3 * error
    assert distance(rows[::2], rows[1::2]) < found.mean() - 5 * error
