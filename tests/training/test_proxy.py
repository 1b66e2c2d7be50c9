"""The proxy of a run that learns: what it measures, which pipeline it keeps, and when it stops the run."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import DIGITS, EXTRACTOR, ROOT, interrupted
from safetensors.torch import load_file

from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig
from dxmi.training import train
from dxmi.training.proxy import ProxyWatch, first_metric, save_best
from dxmi.training.session import Session


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def best(out):
    return json.loads((out / "best" / "proxy.json").read_text())["step"]


@pytest.fixture
def watched(config):
    """A run of six rounds with a proxy after every second."""
    config |= {"steps": 6, "game": {"warmup": 0}, "proxy": {"every": 2, "samples": 8}}
    config["every"] = {"log": 1, "samples": 100, "checkpoint": 2}
    config["evaluators"] = [{"name": "fidelity", "extractor": str(EXTRACTOR), "samples": 16}]
    return config


def play(config, out, resume=False):
    """The rounds of a run, without its products and figures."""
    session = Session(Checked(TrainConfig, config), out, fresh=not resume)
    watch = ProxyWatch(session, session.run.proxy)
    train.start(session, watch, resume)
    train.play(session, watch)
    return out


@pytest.fixture
def figures(monkeypatch):
    """Have the proxies find these figures, one after the other."""

    def give(name, values):
        given = iter(values)

        def measure(evaluators, reference, samples):
            assert evaluators[0].given == ["fid"]  # the first of all, where the run names none
            return {"samples": 8, "metrics": {name: next(given)}}

        monkeypatch.setattr("dxmi.training.proxy.measure", measure)

    return give


def test_a_proxy_keeps_the_best_and_stops_a_run(write, tmp_path):
    """Rates next to nothing: the first proxy is about the best, so that the run ends long before its rounds."""
    teacher = str(ROOT / "examples" / "teachers" / "digits")
    config = {
        "data": {"path": str(DIGITS), "batch_size": 4},
        "energy": {"name": "conv", "width": 4},
        "sampler": {"name": "diffusion", "teacher": teacher, "scheduler": {"name": "ancestral", "steps": 2}},
        "lr": {"energy": 1e-12, "sampler": 1e-12, "std": 1e-12},
        "evaluators": [{"name": "fidelity", "extractor": str(EXTRACTOR), "metrics": ["fid"], "samples": 64}],
        "proxy": {"every": 2, "samples": 32, "patience": 2},
        "game": {"warmup": 0},
        "compare_steps": [],
        "tracker": None,
        "steps": 100,
    }
    path, out = write(config), tmp_path / "run"
    assert main(["train", str(path), "--out", str(out)]) == 0
    proxies = [line for line in lines(out) if "proxy" in line]
    assert [line["step"] for line in proxies] == [2, 4, 6]
    assert proxies[0]["proxy"] == pytest.approx(proxies[2]["proxy"], rel=1e-3)
    assert proxies[0]["proxy_fd_digits_n32"] == proxies[0]["proxy"]
    assert best(out) == 2
    assert (out / "best" / "model_index.json").exists() and (out / "evaluation.json").exists()
    assert [folder.name for folder in Path(out / "checkpoints").iterdir()] == ["step-000006"]
    assert main(["train", str(path), "--out", str(tmp_path / "none"), "--evaluators", "[]"]) == 2


@pytest.mark.parametrize(
    ("name", "values", "step"),
    [
        ("fd_digits", [3.0, 2.0, 1.0], 6),
        ("fd_digits", [math.nan, 2.0, 4.0], 4),
        ("is_digits_mean", [1.0, 3.0, 2.0], 4),  # higher is better, as the evaluator says
        ("isolation", [1.0, 3.0, 2.0], 2),  # of which it says nothing
    ],
)
def test_the_best_is_the_average_of_the_best_step(name, values, step, watched, figures, tmp_path, monkeypatch):
    look = ProxyWatch.look

    def kept(watch, step):
        for kind, sampler in (("average", watch.session.average()), ("newest", watch.session.run.sampler)):
            sampler.save_pretrained(tmp_path / f"{kind}-{step}")
        return look(watch, step)

    def weights(folder):
        return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"].tolist()

    monkeypatch.setattr(ProxyWatch, "look", kept)
    figures(name, values)
    out = play(watched, tmp_path / "run")
    assert best(out) == step
    assert weights(out / "best") == weights(tmp_path / f"average-{step}")
    others = [f"newest-{step}", *(f"average-{k}" for k in (2, 4, 6) if k != step)]
    assert all(weights(out / "best") != weights(tmp_path / other) for other in others)


def test_a_resumed_run_knows_the_proxies_before(watched, figures, tmp_path):
    """The first is the best, one is not finite, and the next stops the run: the third would be the best on its own."""
    watched |= {"steps": 20, "proxy": {"every": 2, "samples": 8, "patience": 2}}
    out = tmp_path / "run"
    figures("fd_digits", [1.0, math.inf])
    with interrupted(5), pytest.raises(KeyboardInterrupt):
        play(watched, out)
    figures("fd_digits", [2.0])
    play(watched, out, resume=True)
    assert [(line["step"], line["proxy"]) for line in lines(out) if "proxy" in line] == [(2, 1), (4, None), (6, 2)]
    assert best(out) == 2 and lines(out)[-1]["step"] == 6


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ([2.0, 2.0, 2.0, 2.0, 2.0], 8),  # nothing moves until round 4, and then nothing gets better
        ([2.0, 2.0, 1.0, 3.0, 4.0], 10),  # the best comes after the warm-up: two more from there
    ],
)
def test_patience_counts_from_the_end_of_the_warm_up(values, last, watched, figures, tmp_path):
    watched |= {"steps": 20, "game": {"warmup": 4}, "proxy": {"every": 2, "samples": 8, "patience": 2}}
    figures("fd_digits", values)
    assert lines(play(watched, tmp_path / "run"))[-1]["step"] == last


def test_the_best_so_far_is_there_until_a_better_one_is_whole(tmp_path):
    def save(folder):
        assert not (tmp_path / "best").exists() or (tmp_path / "best" / "proxy.json").exists()
        folder.mkdir()
        (folder / "weights").write_text("new")

    session = SimpleNamespace(out=tmp_path, average=lambda: SimpleNamespace(save_pretrained=save))
    for step in (2, 4):
        save_best(session, {"step": step})
        assert best(tmp_path) == step and [path.name for path in tmp_path.iterdir()] == ["best"]

    def fail(folder):
        save(folder)
        raise OSError("no space left")

    (tmp_path / "best").rename(tmp_path / "best.old")  # what a run leaves that is killed between its two renames
    session.average = lambda: SimpleNamespace(save_pretrained=fail)
    with pytest.raises(OSError, match="no space"):
        save_best(session, {"step": 6})
    assert best(tmp_path) == 4


def test_the_first_metric_is_asked_for_where_the_evaluator_tells_which_there_are():
    assert first_metric({"name": "fidelity", "metrics": ["kid", "fid"]})["metrics"] == ["kid"]
    assert first_metric({"name": "fidelity", "metrics": None})["metrics"] == ["fid"]
    assert first_metric({"name": "anomaly", "window": 4}) == {"name": "anomaly", "window": 4}
