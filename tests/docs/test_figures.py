"""Figures that README and pages quote are those of the files that hold them."""

import json
import re
import statistics

import pytest
from conftest import ROOT
from pages import by_hand, table

BENCHMARKS, RESULTS = ROOT / "examples" / "benchmarks", ROOT / "examples" / "results"
README, DOCS = ROOT / "README.md", ROOT / "docs"
SPELLED = {"teacher-ddim": "teacher, DDIM", "teacher-unipc": "teacher, UniPC", "student": "student"}


def held(name):
    return json.loads((BENCHMARKS / f"{name}.json").read_text())


def same(text, value):
    """Whether a figure in a page is this number, rounded to the digits that it has; three significant ones at least."""
    number = re.search(r"-?\d*\.?\d+", text)[0]
    decimals = len(number.partition(".")[2])
    assert decimals or abs(value) >= 10, f"{text}: too few digits"
    assert abs(float(number) - value) <= 0.5000001 * 10**-decimals, f"{text} is not {value}"


def test_same_is_strict():
    same(".292", 0.29211)
    with pytest.raises(AssertionError):
        same(".293", 0.29211)


def quoted(page, before, count):
    """The first figures after some words of a page."""
    _, found, rest = " ".join(by_hand(page).split()).partition(before)
    assert found, f"{page}: {before}"
    return re.findall(r"(?<![\w.])\d*\.?\d+", rest)[:count]


@pytest.fixture(scope="module")
def digits():
    rows = json.loads((RESULTS / "digits" / "evaluation.json").read_text())["rows"]
    return {(row["name"], row["steps"]): row for row in rows}


def test_the_table_of_digits(digits):
    lines = [
        line.split("|")[1:-1]
        for line in (DOCS / "results.md").read_text().splitlines()
        if re.match(r"\| \S+ \| \d* \| (10000|899)", line)
    ]
    rows = {(name.strip(), int(steps) if steps.strip() else None): cells for name, steps, *cells in lines}
    assert rows.keys() == digits.keys()
    names = ("fd_digits", "fd_digits_shares_right", "class_tv", "precision", "recall")
    for key, (n, *cells) in rows.items():
        assert int(n) == digits[key]["samples"]
        for name, cell in zip(names, cells, strict=True):
            assert float(cell) == pytest.approx(digits[key]["metrics"][name], rel=6e-3), f"{key}: {name}"


def test_the_four_rows_of_the_readme(digits):
    lines = [line.strip("| ").replace("*", "").split(" | ") for line in README.read_text().splitlines()]
    rows = [line for line in lines if line[0] in SPELLED.values()]
    assert len(rows) == 4
    for name, steps, figure in rows:
        key = next(key for key, spelled in SPELLED.items() if spelled == name)
        same(figure, digits[key, int(steps)]["metrics"]["fd_digits"])


def test_the_data_drawn_again(digits):
    found = digits["student", 4]["metrics"]
    same(*quoted(README, "the data drawn again have", 1), found["fd_digits_floor"])
    names = ("fd_digits_floor", "fd_digits_shares_right_floor", "class_tv_floor")
    for text, name in zip(quoted(DOCS / "results.md", "10,000 of them, have", 3), names, strict=True):
        same(text, found[name])


def test_three_seeds():
    runs = held("three_seeds")["runs"]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    said = {
        (README, "2 the student has"): ("student_4", "fd_digits"),
        (README, "UniPC in ten steps"): ("teacher-unipc_10", "fd_digits"),
        (DOCS / "results.md", "(`examples/benchmarks/three_seeds.py`) the student has"): ("student_4", "fd_digits"),
        (DOCS / "results.md", "UniPC in ten steps"): ("teacher-unipc_10", "fd_digits"),
        (DOCS / "results.md", "with shares put right"): ("student_4", "fd_digits_shares_right"),
        (DOCS / "results.md", "against UniPC's"): ("teacher-unipc_10", "fd_digits_shares_right"),
    }
    for (page, start), (row, metric) in said.items():
        for text, run in zip(quoted(page, start, 3), runs, strict=True):
            same(text, run["rows"][row][metric])
    shares = [run["rows"]["student_4"][f"class_share_{end}"] for run in runs for end in ("min", "max")]
    least, most = quoted(DOCS / "results.md", "has between", 2)
    same(least, min(shares))
    same(most, max(shares))


def test_learned_samplers():
    targets, rows = held("learned_samplers")["targets"], table(DOCS / "value-gradient-sampling.md", "| target |")
    for name, (error, ess, *_, seconds) in rows.items():
        median = targets[name.split(",")[0]]["median"]
        best, worst = ess.split(" (")
        for text, value in ((error, median["log_z_error"]), (best, median["ess"]), (worst, median["ess_least"])):
            same(text, value)
        same(seconds, median["cpu_seconds"])
    assert len(rows) == 4


@pytest.mark.parametrize(("name", "columns"), [("vgs_against_chains", (1, 2)), ("vgs_against_chains_uneven", (3, 4))])
def test_chains(name, columns):
    """The rows of the table are those of the file, in its order."""
    rows = table(DOCS / "value-gradient-sampling.md", "| | gradients |")
    for row, kept in zip(rows.values(), held(name)["rows"], strict=True):
        for text, key in zip((row[i] for i in columns), ("mode_error", "energy_w2"), strict=True):
            same(text, kept[key])


def test_eight_gaussians():
    ways, rows = held("eight_gaussians")["ways"], table(DOCS / "learned-energies.md", "| `configs/eight_gaussians_")
    for name, (inside, modes, auroc, seconds) in rows.items():
        median = ways[re.match(r"\w+", name)[0]]["median"]
        least, most = modes.split(" (")[0].split(" to ")
        values = (inside, "inside"), (least, "least_share"), (most, "most_share"), (auroc, "auroc")
        for text, key in (*values, (seconds, "cpu_seconds")):
            same(text, median[key])
    assert len(rows) == 4


def test_outliers():
    (result,) = held("outliers")["results"]
    for name, cells in table(DOCS / "learned-energies.md", "| outliers |").items():
        for text, value in zip(cells, result["auroc"][name].values(), strict=True):
            same(text, value)


def test_anomalies():
    figures = held("anomaly_standin")["runs"][0]["auroc"]
    names = {"the same after EBM-VGS": "EBM-VGS"}
    rows = table(DOCS / "learned-energies.md", "| synthetic stand-in |")
    assert len(rows) == len(figures)
    for name, cells in rows.items():
        for text, key in zip(cells, ("det_max", "det_pool", "loc"), strict=True):
            same(text, figures[names.get(name, name)][key])


def test_score_models():
    rows = list(table(DOCS / "score-matching.md", "| | network calls |").values())
    for (calls, figure), row in zip(rows, held("score_models")["rows"][:3], strict=True):
        assert int(calls) == row["nfe"]
        same(figure, row["metrics"]["fd_digits"])


def test_speed():
    speeds = held("mcmc")["steps_per_cpu_second"]
    for name, (*cells, _) in table(DOCS / "densities.md", "| | dxmi |").items():
        for library, text in zip(("dxmi", "torchebm", "blackjax"), cells, strict=True):
            if text:
                same(text, speeds[f"{library} {name.split(',')[0].lower()}"])


def test_adapters():
    ways = held("lora")["width 128"]["ways"]
    rows = table(DOCS / "your-pipeline.md", "| | learn |").values()
    for (learn, saved, peak), key in zip(rows, ("full", "lora", "lora, bfloat16"), strict=True):
        same(learn, ways[key]["learn"] / 1e6)
        same(saved, ways[key]["saved_mb"])
        same(peak, ways[key]["peak_mb_above_nothing"])


def test_classes():
    shares = held("class_accuracy")["accuracy"]
    students = [statistics.mean(value) for key, value in shares.items() if key.startswith("student")]
    assert len(students) == 3 and all(round(share, 2) >= 0.99 for share in students)
    asked, fifty, four = quoted(DOCS / "your-pipeline.md", "draw the digit asked for in", 1) + quoted(
        DOCS / "your-pipeline.md", "under fifty DDIM steps in", 2
    )
    same(asked, 100 * statistics.median(students))
    same(fifty, 100 * statistics.mean(shares["teacher-ddim, 50 steps"]))
    same(four, 100 * statistics.mean(shares["teacher-ddim, 4 steps"]))


def test_time_to_quality():
    kept = held("time_to_quality")
    target, rounds, seconds = quoted(DOCS / "results.md", "student is below the teacher's fifty DDIM steps (", 3)
    same(target, kept["target_fd"])
    results = kept["results"]
    assert (int(rounds), int(seconds)) == (results["dxmi"]["rounds"], round(results["dxmi"]["reached_after"]))
    best = quoted(DOCS / "results.md", "in five times as long; their best are", 3)
    for text, way in zip(best, ("paper_x1", "paper_x10", "paper_x100"), strict=True):
        same(text, results[way]["best"])


@pytest.mark.parametrize(
    ("image", "original"),
    [
        ("banana.png", "banana/picture.png"),
        ("solvers.png", "solvers/picture.png"),
        ("cifar10.png", "cifar10/picture.png"),
        ("before_after.png", "digits/before_after.png"),
    ],
)
def test_pictures_are_those_of_the_results(image, original):
    assert (DOCS / "images" / image).read_bytes() == (RESULTS / original).read_bytes()


def figures(name, metric):
    """Mean and spread of a distance by row of a kept report."""
    rows = json.loads((RESULTS / name / "report.json").read_text())["rows"]
    return {(row["name"], row["steps"]): (row["metrics"][metric], row["spread"].get(metric)) for row in rows}


def test_solvers():
    rows, page = figures("solvers", "fd_digits"), DOCS / "results.md"
    said = quoted(page, "in four steps the student has", 4) + quoted(page, "in fifty, UniPC", 2)
    unipc = [rows["UniPCMultistep", steps][0] for steps in (4, 10)]
    for text, value in zip(said, [*rows["student", 4], *rows["DDIM", 50], *unipc], strict=True):
        same(text, value)
    for text, value in zip(quoted(page, "899 images each,", 2), rows["data-floor", None], strict=True):
        same(text, value)


def test_cifar():
    page, rows = DOCS / "results.md", figures("cifar10", "fd_cifar10")
    tests = figures("cifar10_test", "fd_cifar10")
    wanted = {
        "of 300 samples of three seeds,": rows["DDIM", 50],
        "with DDIM in fifty steps and": rows["UniPCMultistep", 4],
        "300 test images have": rows["data-floor", None][:1],
        "digits' settings and 300 rounds, has": rows["student", 4],
        "`fd_cifar10_10k` is": tests["test.parquet", None][:1],
        "for test against training images and": tests["data-floor", None],
    }
    for start, values in wanted.items():
        for text, value in zip(quoted(page, start, len(values)), values, strict=True):
            same(text, value)
