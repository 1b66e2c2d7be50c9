"""``dxmi evaluate`` of pipelines and stored images."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import DIGITS, EXTRACTOR, ROOT
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.extractors.classifier import Classifier
from PIL import Image
from tiny import tiny

import dxmi
from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.evaluation.earlier_reports import load_report
from dxmi.evaluation.measure import measure
from dxmi.evaluation.stored_images import images
from dxmi.pipelines import PipelineDraw

TEACHER = ROOT / "examples" / "teachers" / "digits"
JUDGE = ["--reference", str(DIGITS), "--extractor", str(EXTRACTOR)]
QUICK = {"extractor": str(EXTRACTOR), "metrics": ["fid"], "n": 40, "seeds": [0, 1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny("classes", tmp_path_factory.mktemp("classes"))


def test_a_sweep_is_one_table_one_json_and_one_picture(tmp_path, capsys):
    out = tmp_path / "out"
    schedulers = "DDIMScheduler,HeunDiscreteScheduler"
    sweep = ["--scheduler", schedulers, "--steps", "1,2", "--metrics", "fid", "-n", "40", "--seeds", "0,1"]
    assert main(["evaluate", str(TEACHER), *JUDGE, *sweep, "--out", str(out)]) == 0
    assert "fd_digits_0.04k" in capsys.readouterr().out
    found = json.loads((out / "report.json").read_text())
    rows = found["rows"]
    assert [(r["name"], r["steps"], r["nfe"]) for r in rows[:4]] == [
        ("DDIM", 1, 1), ("DDIM", 2, 2), ("HeunDiscrete", 1, 1), ("HeunDiscrete", 2, 3)
    ]  # fmt: skip
    assert rows[4]["name"] == "data-floor" and rows[4]["metrics"]["fd_digits"] < rows[0]["minimum"]["fd_digits"]
    assert set(rows[0]["seeds"]) == {"0", "1"} and rows[0]["samples"] == found["stamp"]["samples"] == 40
    assert found["stamp"]["reference"]["size"] == 1797 and found["stamp"]["noise"] == [
        "SeedSequence(seed, index) of each sample"
    ]
    assert (out / "picture.png").stat().st_size > 1000 and "fd_digits_0.04k" in (out / "table.md").read_text()


def test_running_again_draws_one_image_to_try_and_no_sample(folder, tmp_path, monkeypatch):
    sizes, call = [], PipelineDraw.__call__
    monkeypatch.setattr(PipelineDraw, "__call__", lambda self, n, *rest: sizes.append(n) or call(self, n, *rest))
    first, again = (dxmi.evaluate(folder, DIGITS, steps=[2], out=tmp_path, **QUICK).rows for _ in range(2))
    assert again == first and sizes == [1, 40, 40, 1]
    with pytest.raises(ConfigError, match="^out: .* holds a report of something else"):
        dxmi.evaluate(str(tiny("ddpm", tmp_path / folder.name)), DIGITS, steps=[2], out=tmp_path, **QUICK)
    (tmp_path / "report.json").unlink()
    with pytest.raises(ConfigError, match="^out: .* holds samples with pipeline"):
        dxmi.evaluate(str(tmp_path / folder.name), DIGITS, steps=[2], out=tmp_path, **QUICK)


def test_other_metrics_come_beside_those_of_before(folder, tmp_path):
    asked = {**QUICK, "steps": [2], "out": tmp_path}
    first = dxmi.evaluate(folder, DIGITS, **asked).rows
    both = dxmi.evaluate(folder, DIGITS, **(asked | {"metrics": ["isc"]})).rows
    assert both == json.loads((tmp_path / "report.json").read_text())["rows"]
    for one, other in zip(first, both, strict=True):
        floor = {name for name in one["metrics"] if "_floor" in name}
        assert set(other["metrics"]) == {"fd_digits", "is_digits_mean", "is_digits_std"} | floor and len(floor) == 2
        assert all(other[key]["fd_digits"] == one[key]["fd_digits"] for key in ("metrics", "spread", "minimum"))
        assert all(other["seeds"][seed]["fd_digits"] == own["fd_digits"] for seed, own in one["seeds"].items())


def test_figures_that_a_new_report_lacks_are_put_aside(folder, tmp_path, capsys):
    asked = {**QUICK, "steps": [2], "out": tmp_path}
    first = dxmi.evaluate(folder, DIGITS, **asked)
    dxmi.evaluate(folder, DIGITS, **(asked | {"metrics": ["isc"], "seeds": [0, 1, 2]}))
    assert load_report(tmp_path / "report-1.json").to_json() == first.to_json()
    assert f"no more are in {tmp_path / 'report-1.json'}" in capsys.readouterr().err.replace("\n", " ")
    dxmi.evaluate(folder, DIGITS, **(asked | {"metrics": ["isc"], "seeds": [0, 1, 2], "floor": None}))
    assert load_report(tmp_path / "report-2.json").rows[-1]["name"] == "data-floor"
    last = dxmi.evaluate(folder, DIGITS, **(asked | {"metrics": ["isc"], "seeds": [0, 1, 2], "steps": [2, 3]}))
    assert len(last.rows) == 3 and not (tmp_path / "report-3.json").exists()


def test_a_bar_on_the_screen_goes_with_the_images(folder, tmp_path, monkeypatch):
    """It ends where all are there, whether they were drawn, kept or stored."""
    from dxmi import screen

    bars, seen = [], []

    class Bar(screen.Progress):
        def add_task(self, name, total):
            bars.append([name, total, 0])
            return super().add_task(name, total=total)

        def advance(self, task, k):
            bars[-1][2] += k
            seen.append(k)

    monkeypatch.setattr(screen, "Progress", Bar)
    asked = {**QUICK, "n": 300, "seeds": [0], "steps": [2], "floor": None, "batch_size": 200, "out": tmp_path}
    dxmi.evaluate(folder, DIGITS, **asked)
    dxmi.evaluate(folder, DIGITS, **asked)
    dxmi.evaluate(DIGITS, DIGITS, extractor=str(EXTRACTOR), metrics=["fid"], n=300, floor=None)
    assert [bar[1:] for bar in bars] == [[300, 300]] * 3 and seen == [200, 56, 44, 256, 44, 256, 44]


def test_a_loaded_pipeline_and_its_folder_are_the_same_to_python(folder):
    from diffusers import DiffusionPipeline

    loaded = dxmi.evaluate(DiffusionPipeline.from_pretrained(folder), DIGITS, steps=[2], **QUICK)
    again = dxmi.evaluate(folder, DIGITS, steps=[2], batch_size=7, **QUICK)
    a, b = loaded.rows[0]["metrics"]["fd_digits"], again.rows[0]["metrics"]["fd_digits"]
    assert a == pytest.approx(b, rel=1e-3)  # pixels next to the middle of two levels may round to the other
    assert loaded.table().count("\n") == 4 and json.loads(loaded.to_json())["stamp"] == loaded.stamp


def test_stored_images_have_no_seeds_and_no_distance_to_themselves():
    report = dxmi.evaluate(DIGITS, DIGITS, label="label", extractor=str(EXTRACTOR), metrics=["fid", "accuracy"])
    row = report.rows[0]
    assert abs(row["metrics"]["fd_digits"]) < 1e-3 and not row["seeds"] and row["nfe"] is None
    assert row["metrics"]["accuracy"] > 0.9


def test_a_test_set_is_the_floor_and_the_reference_may_be_resized(tmp_path):
    """Images in memory: (16, 16) ones as a reference for (8, 8) ones. Each option has its own data."""
    pixels = images(str(DIGITS), "reference").pixels
    large = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with pytest.raises(ConfigError, match=r"reference: its images are \(16, 16\), those of tensor \(8, 8\) \(H,W\)"):
        dxmi.evaluate(pixels[:300], large, extractor=str(EXTRACTOR), metrics=["fid"])
    reference = {"path": str(DIGITS), "size": 8, "label": "label"}
    found = dxmi.evaluate(pixels[:300], reference, floor=pixels[300:900], extractor=str(EXTRACTOR), metrics=["fid"])
    assert [(row["name"], row["samples"]) for row in found.rows] == [("tensor", 300), ("data-floor", 600)]
    none = dxmi.evaluate(pixels[:300], reference, floor=None, extractor=str(EXTRACTOR), metrics=["fid"])
    assert none.rows == found.rows[:1]


def test_a_sweep_does_not_depend_on_its_order(tmp_path):
    """DDPM of a teacher that has learned its variances, before and after DDIM, which knows none."""
    teacher, names = tiny("ddpm_variance", tmp_path), ["DDPMScheduler", "DDIMScheduler"]
    one, other = (dxmi.evaluate(teacher, DIGITS, steps=[3], schedulers=n, **QUICK).rows for n in (names, names[::-1]))
    assert [row["metrics"] for row in one[:2]] == [row["metrics"] for row in (other[1], other[0])]


def test_prompts_are_in_the_stamp_and_other_ones_are_not_compared(tmp_path, capsys):
    teacher = tiny("sd", tmp_path)
    for name, prompt in (("a", "a cat"), ("b", "a dog")):
        dxmi.evaluate(teacher, DIGITS, steps=[2], prompts=[prompt], floor=None, out=tmp_path / name, **QUICK)
    a, b = (str(tmp_path / name / "report.json") for name in "ab")
    capsys.readouterr()
    assert main(["evaluate", "--compare", a, b]) == 2
    assert "prompts" in capsys.readouterr().err and main(["evaluate", "--compare", a, a]) == 0


def test_a_folder_of_images(tmp_path, capsys):
    for i, image in enumerate(images(str(DIGITS), "reference").pixels[:30]):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i:02d}.png")
    row = dxmi.evaluate(tmp_path, DIGITS, extractor=str(EXTRACTOR), metrics=["isc"], n=40).rows[0]
    assert row["samples"] == 30 and row["metrics"]["is_digits_mean"] > 1
    assert f"note: 30 images of {tmp_path.name} were measured, not 40" in capsys.readouterr().err


def test_published_statistics_stand_for_a_reference(tmp_path, capsys):
    """Moments of the digits' own features: the distance is that to the digits, and there is no floor."""
    judge = make_extractor(str(EXTRACTOR))
    features = judge(images(str(DIGITS), "reference").pixels)[0].double().numpy()
    moments = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    np.savez(tmp_path / "digits.npz", **moments, extractor=judge.sha256)
    np.savez(tmp_path / "inception.npz", **moments)
    asked = {"extractor": str(EXTRACTOR), "metrics": ["fid"], "n": 300, "seeds": [0], "steps": [2]}
    found, to_images = (dxmi.evaluate(TEACHER, to, **asked) for to in (tmp_path / "digits.npz", DIGITS))
    expected = {"fd_digits": to_images.rows[0]["metrics"]["fd_digits"]}  # moments cannot be drawn again
    assert found.rows[0]["metrics"] == pytest.approx(expected, rel=1e-5)
    assert [row["name"] for row in found.rows] == ["digits"] and found.stamp["reference"] == {"name": "digits.npz"}
    command, _ = ["evaluate", str(TEACHER), "--extractor", str(EXTRACTOR), "--metrics", "fid"], capsys.readouterr()
    for name, n, says in (("digits.npz", [], "-n: "), ("inception.npz", ["-n", "9"], "does not say its extractor")):
        assert main([*command, "--reference", str(tmp_path / name), *n]) == 2
        told = capsys.readouterr().err
        assert says in told and told.count("\n") == 1


def test_options_of_the_evaluator_follow_its_name(tmp_path):
    out, more = (
        tmp_path / "out",
        ["--evaluator.infinity", "true", "--evaluator.bootstrap=5", "--evaluator.floor_draws", "0"],
    )
    asked = ["--steps", "2", "--metrics", "fid", "-n", "40", "--seeds", "0", "--out", str(out)]
    assert main(["evaluate", *more, str(TEACHER), *JUDGE, *asked]) == 0
    found = json.loads((out / "report.json").read_text())["rows"][0]["metrics"]
    assert set(found) == {"fd_digits", "fd_digits_inf", "fd_digits_low", "fd_digits_high"}


def test_help_tells_the_evaluators_options(capsys):
    for more, option in (([], "--evaluator.bootstrap"), (["--evaluator", "anomaly"], "--evaluator.window")):
        assert main(["evaluate", "--help", *more]) == 0
        told = capsys.readouterr().out
        assert "--reference" in told and option in told


CHAIN = {"sampler": {"name": "langevin", "step_size": 0.01, "steps": 3}, "compare_steps": []}
LEARNED = {"sampler": {"name": "vgs", "steps": 3}, "value": {"name": "conv", "width": 4}, "compare_steps": []}


def test_a_run_is_drawn_at_its_own_prompts(tmp_path):
    teacher = tiny("sd", tmp_path / "teacher")
    config = {"sampler": {"name": "diffusion", "teacher": str(teacher), "prompts": ["a cat", "a dog"]}}
    run, asked = tmp_path / "run", {"steps": [2], "floor": None, **QUICK}
    run.mkdir()
    (run / "run.yaml").write_text(yaml.safe_dump(config))
    (run / "pipeline").symlink_to(teacher)
    own, same = dxmi.evaluate(run, DIGITS, **asked), dxmi.evaluate(teacher, DIGITS, prompts=["a cat", "a dog"], **asked)
    assert own.stamp == same.stamp and own.stamp["prompts"] == ["a cat", "a dog"]
    assert own.rows[0]["seeds"] == same.rows[0]["seeds"]


def test_an_unfinished_run_is_named(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {"path": "x"}, "sampler": "diffusion"}))
    assert main(["evaluate", str(tmp_path), *JUDGE]) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_a_folder_keeps_its_report(folder, tmp_path, capsys):
    """More seeds and samples than before make it larger; another reference, or fewer of them, would lose it."""
    half = images(str(DIGITS), "reference").pixels[:900]
    dxmi.evaluate(folder, DIGITS, steps=[2], floor=None, out=tmp_path, **QUICK)
    before = (tmp_path / "report.json").read_bytes()
    for reference, change, says in (
        (half, {}, "reference.name: digits.parquet -> tensor"),
        (DIGITS, {"n": 39}, "n: 40 -> 39"),
        (DIGITS, {"seeds": [0]}, "seed 1 is left out"),
        (DIGITS, {"evaluator": {"name": "fidelity", "bootstrap": 3}}, "evaluators.0.bootstrap: 0 -> 3"),
    ):
        with pytest.raises(ConfigError, match=f"^out: .* holds a report of something else .*{says}"):
            dxmi.evaluate(folder, reference, steps=[2], floor=None, out=tmp_path, **QUICK | change)
    assert (tmp_path / "report.json").read_bytes() == before
    larger = dxmi.evaluate(
        folder, DIGITS, steps=[1, 2], floor=None, out=tmp_path, **QUICK | {"n": 50, "seeds": [0, 1, 2]}
    )
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == larger.rows


def test_grey_samples_are_measured_against_colour(tmp_path):
    """Grey images against themselves as colour ones, by an extractor of colour."""
    weights = Classifier.load(EXTRACTOR)
    colour = Classifier(**weights.options | {"channels": 3})
    state = weights.state_dict()
    colour.load_state_dict(state | {"body.0.0.weight": state["body.0.0.weight"].repeat(1, 3, 1, 1) / 3})
    colour.save(tmp_path / "colour.safetensors")
    grey = images(str(DIGITS), "reference").pixels
    asked = {"extractor": str(tmp_path / "colour.safetensors"), "metrics": ["fid"], "floor": None}
    assert abs(dxmi.evaluate(grey, grey.repeat(1, 3, 1, 1), **asked).rows[0]["metrics"]["fd_colour"]) < 1e-3


@pytest.mark.parametrize("kind", [CHAIN, LEARNED])
def test_a_run_without_a_pipeline_is_drawn_from_again(kind, tmp_path, capsys):
    """Its chain on the learned energy, or its learned sampler: the figures are those of the run itself."""
    config = {
        "data": {"path": str(DIGITS), "batch_size": 4},
        "energy": {"name": "conv", "width": 4},
        "evaluators": [{"name": "fidelity", "extractor": str(EXTRACTOR), "metrics": ["fid"], "samples": 40}],
        "tracker": None,
        "steps": 2,
        **kind,
    }
    path, out, figures = tmp_path / "config.yaml", tmp_path / "run", tmp_path / "figures"
    path.write_text(yaml.safe_dump(config))
    assert main(["train", str(path), "--out", str(out)]) == 0
    asked = ["--metrics", "fid", "-n", "40", "--seeds", "0", "--out", str(figures)]
    assert main(["evaluate", str(out), *JUDGE, *asked]) == 0
    (row, _), (own, *_) = (
        json.loads((f).read_text())["rows"] for f in (figures / "report.json", out / "evaluation.json")
    )
    assert (row["name"], row["steps"], row["nfe"]) == ("run", 3, 3)
    assert row["metrics"] == pytest.approx(own["metrics"], rel=1e-6)
    assert main(["evaluate", str(out), *JUDGE, "--steps", "2"]) == 2
    assert "--steps: " in capsys.readouterr().err


def test_third_party_evaluators_and_plain_ones_are_given_all_samples():
    class Mean:
        def __call__(self, draw, reference):
            return {"mean": float(draw(50).mean() - reference[0].mean())}

    found = measure([Mean()], [torch.ones(1)], lambda n: torch.full((n, 1), 3.0))
    assert found == {"samples": 50, "metrics": {"mean": 2.0}}


@pytest.mark.parametrize(
    ("source", "arguments", "says"),
    [
        (TEACHER, [], "--reference: give what to measure against"),
        (TEACHER, [*JUDGE, "--scheduler", "Unknown"], "--scheduler: diffusers has no 'Unknown'"),
        (TEACHER, [*JUDGE, "--scheduler", "DDIMInverseScheduler"], "--scheduler: diffusers has no 'DDIMInv"),
        (TEACHER, [*JUDGE, "--scheduler", "EDMEulerScheduler"], "reads no noise levels of DDPMScheduler"),
        (TEACHER, [*JUDGE, "--steps", "2000"], "--steps: 2000 with DDPMScheduler"),
        (TEACHER, [*JUDGE, "--steps", "0"], "--steps: [0] are not all positive"),
        (TEACHER, [*JUDGE, "--steps", "four"], "--steps: four are not whole numbers"),
        (TEACHER, [*JUDGE, "--seeds", "1,1"], "--seeds: 1, 1 are not different"),
        (TEACHER, [*JUDGE, "--seed", "1"], "--seed: samples of images have several"),
        (TEACHER, [*JUDGE, "--prompt", "a cat"], "--prompt: digits does not draw from text"),
        (TEACHER, [*JUDGE, "--metrics", "fit"], "metrics: fit is not one of fid, kid, isc, prc, accuracy"),
        (TEACHER, [*JUDGE, "--evaluator", "nobody"], "nobody"),
        (TEACHER, [*JUDGE, "--evaluator.bootstraps", "5"], "--evaluator.bootstraps: no such key; nearest: bootstrap"),
        (TEACHER, [*JUDGE, "--evaluator.bootstrap", "1"], "--evaluator.bootstrap: 1 resamples give no interval"),
        (TEACHER, [*JUDGE, "--metrics", "accuracy"], "--metrics: accuracy needs samples that were drawn at labels"),
        (TEACHER, [*JUDGE, "--scheduler", "DDIMScheduler,DDIMScheduler"], "--scheduler: DDIMScheduler, DDIMSch"),
        (TEACHER, [*JUDGE, "--steps", ""], "--steps: the list is empty; leave the option out"),
        (TEACHER, [*JUDGE, "--steps", "²"], "--steps: ² are not whole numbers"),
        (TEACHER, [*JUDGE, "--evaluator.samples", "9"], "dxmi: --evaluator.samples: give it as n"),
        (
            TEACHER,
            [*JUDGE, "--evaluator.reference_statistics", "x"],
            "reference_statistics: give it as reference",
        ),
        (TEACHER, [*JUDGE, "--floor", "none", "--floor.split", "test"], "--floor.split: it is for a dataset"),
        (TEACHER, [*JUDGE, "--reference.split", "test"], "--reference.split: a single file, or shards, have none"),
        (TEACHER, [*JUDGE, "--source.size", "8"], "is drawn from, not read; leave it out"),
        (TEACHER, [*JUDGE, "--label", "labels"], "--reference.label: "),
        (TEACHER, [*JUDGE, "--evaluators.bootstrap", "5"], "--evaluators.bootstrap: 'evaluate' has no such option"),
        (TEACHER, [*JUDGE, "--column", "pixels"], "dxmi: --reference.column: "),
        (TEACHER, [*JUDGE, "--reference.column", "label"], "dxmi: "),
        (TEACHER, [*JUDGE, "--reference.size", "16"], "reference: its images are (16, 16), those of digits (8, 8)"),
        (TEACHER, [*JUDGE, "--reference.flip", "true"], "--reference.flip: no such option; there are path, "),
        (TEACHER, [*JUDGE, "--floor", "nowhere.parquet"], "dxmi: --floor: there is no nowhere.parquet"),
        (TEACHER, [*JUDGE, "--batch-size", "257"], "--batch-size: 257 is not between 1 and 256"),
        (TEACHER, [*JUDGE, "--steps", "2,2"], "--steps: 2, 2 are not different"),
        (TEACHER, ["--reference", str(DIGITS), "--metrics", "fid"], "inception-2015-12-05-6726825d.pth"),
        (DIGITS, [*JUDGE, "--steps", "4"], "--steps: these images are stored, and nobody draws them; leave it out"),
        (DIGITS, [*JUDGE, "--seeds", "4"], "--seeds: these images are stored, and nobody draws them; leave it out"),
        (DIGITS, [*JUDGE, "--label", "labels"], "dxmi: --source.label: "),
        (DIGITS, ["--reference", "nowhere.parquet"], "dxmi: --reference: there is no nowhere.parquet"),
        ("nowhere", JUDGE, "nowhere: no pipeline can be loaded from it"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(source, arguments, says, tmp_path, capsys):
    out = tmp_path / "out"
    few = ["--steps", "2"] if source == TEACHER and "--steps" not in arguments else []  # of its usual 1000
    assert main(["evaluate", str(source), *arguments, *few, "-n", "20", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"metrics": "fid"}, "metrics: 'fid' is no list of names; give one"),
        ({"steps": 4}, "steps: 4 is no list of whole numbers; give one"),
        ({"steps": ["4"]}, r"steps: \['4'\] is no list of whole numbers; give one"),
        ({"seeds": None}, "seeds: None is no list of whole numbers; give one"),
        ({"prompts": "a cat"}, "prompts: 'a cat' is no list of names; give one"),
        ({"out": 5}, "out: 5 is no path of a folder"),
        ({"out": "/proc/x"}, "out: nothing can be written in /proc: .*"),
        ({"n": "40"}, "n: '40' is no whole number"),
        ({"batch_size": 1.5}, "batch_size: 1.5 is no whole number"),
    ],
)
def test_python_is_told_what_a_list_and_a_number_are(given, says):
    with pytest.raises(ConfigError, match=f"^{says}$"):
        dxmi.evaluate(TEACHER, DIGITS, **given)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"evaluator": {"name": "fidelity", "bootstrap": 1}}, "evaluator.bootstrap"),
        ({"evaluator": {"name": "fidelity", "extractor": "vgg16"}}, "evaluator.extractor"),
        ({"extractor": "nowhere.safetensors"}, "extractor"),
        ({"metrics": ["fit"]}, "metrics"),
        ({"metrics": ["accuracy"], "extractor": str(EXTRACTOR), "n": 4, "seeds": [0], "steps": [1]}, "metrics"),
        ({"reference": {"path": str(DIGITS), "column": "nothing"}}, "reference.column"),
        ({"reference": {"path": str(DIGITS), "size": 0}}, "reference.size"),
        ({"reference": "nowhere.parquet"}, "reference"),
        ({"reference": "nowhere.npz"}, "n"),
        ({"reference": "nowhere.npz", "n": 4}, "reference"),
        ({"floor": {"path": str(DIGITS), "split": "test"}}, "floor.split"),
        ({"pipeline": DIGITS, "schedulers": ["DDIMScheduler"]}, "schedulers"),
        ({"pipeline": {"path": str(DIGITS), "label": "nothing"}}, "source.label"),
    ],
)
def test_errors_name_the_parameter_of_python(given, key):
    asked = {"pipeline": TEACHER, "reference": DIGITS, "steps": [1] if "pipeline" not in given else [], **given}
    extractor = {} if {"evaluator", "extractor"} & given.keys() else {"extractor": str(EXTRACTOR)}
    with pytest.raises(ConfigError) as caught:
        dxmi.evaluate(**asked, **extractor)
    assert caught.value.key == key


@pytest.mark.parametrize("source", [np.zeros((4, 1, 8, 8), np.uint8), None, 5])
def test_python_is_told_what_can_be_measured(source):
    with pytest.raises(ConfigError, match="^source: .* is no pipeline, path or tensor"):
        dxmi.evaluate(source, DIGITS)


def test_a_student_keeps_its_steps_and_its_scheduler():
    from types import SimpleNamespace

    from dxmi.pipelines.other_schedulers import other_scheduler

    with pytest.raises(ConfigError, match="learned together"):
        other_scheduler(SimpleNamespace(config={"table": [[0.0] * 6]}), "DDIMScheduler")
