"""The rivals of examples/rivals: each leaves a pipeline, their losses are what their papers say, cells are kept."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, image_run
from torch import nn

from dxmi.api import Transition
from dxmi.chains import save_grid

NAMES = {
    "consistency": {"intervals": 4},
    "critic": {},
    "dmd2": {"fake_steps": 1},
    "regression": {"paths": 16, "solver_steps": 4},
    "sft_pg": {"critic_steps": 1, "policy_steps": 2},
}


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "rivals"))
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "benchmarks"))


def load(name):
    return importlib.import_module(name)


def played(name, teacher, monkeypatch, steps=2, **settings):
    """What a rival leaves after two rounds."""
    rival, common = load(name), load("common")
    monkeypatch.setattr(common.Match, "share", property(lambda match: match.done / 2))
    task = common.Task(steps=steps, teacher=str(teacher), batch=8)
    return rival.train(task, rival.Settings(**NAMES[name] | settings))


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in NAMES), ("dmd2", {"critic": 0.0, "renoised": 1})]
)
def test_each_leaves_a_pipeline_that_draws(name, settings, teacher, monkeypatch, tmp_path):
    match = played(name, teacher, monkeypatch, **settings)
    assert match.done == 2
    untouched = match.student.original().network.state_dict()
    assert any(not torch.equal(p, untouched[key]) for key, p in match.student.network.state_dict().items())
    match.average.module.save_pretrained(tmp_path / "pipeline")
    images = load("measuring").pipeline_draw(tmp_path / "pipeline")(3, 2, torch.Generator().manual_seed(0))
    assert images.shape == (3, 1, 8, 8) and images.isfinite().all() and images.abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_enough(name, teacher, monkeypatch):
    assert played(name, teacher, monkeypatch, steps=1).done == 2


@pytest.mark.parametrize("name", NAMES)
def test_each_may_try_as_many_settings(name):
    rival = load(name)
    settings = [rival.Settings(**trial) for trial in rival.TRIALS]
    assert len(set(settings)) == len(load("regression").TRIALS) and settings[0] == rival.Settings()


def test_preparations_are_paid_for_and_rounds_end_with_the_time(teacher, monkeypatch):
    common = load("common")
    clock = SimpleNamespace(now=5.0, process_time=lambda: clock.now)
    monkeypatch.setattr(common, "time", clock)
    match = common.Match(common.Task(seconds=10.0, teacher=str(teacher), batch=2))
    clock.now += 4  # paths are drawn
    shares = []
    for _ in match.rounds():
        shares.append(match.share)
        clock.now += 2.5
    assert shares == [0.4, 0.65, 0.9]


def test_rates_rise_and_fall():
    common = load("common")
    assert [common.falling(s) for s in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [common.cycle(s) for s in (0, 0.15, 0.3, 0.65, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


class Normal:
    """A teacher and student of data N(mean, var I): noise levels as angles, exact clean images, exact jumps to data."""

    def __init__(self, mean=0.0, var=1.0, nodes=(990.0, 0.0)):
        self.mean, self.var, self.steps = mean, var, len(nodes) - 1
        self.noise_levels, self.noise = torch.tensor(nodes), SimpleNamespace(known=torch.tensor([0.0, 990.0]))

    def at_level(self, level):
        angle = level.double() * math.pi / 2000
        return angle.cos(), angle.sin()

    def denoised(self, x, level, cond=None, network=None):
        """By a network what it says; by the teacher the mean of the data given x."""
        alpha, sigma = (part.reshape(-1, 1) for part in self.at_level(level))
        if network is not None:
            return network(x, alpha, sigma)
        return self.mean + alpha * self.var / self.spread(alpha, sigma) * (x - alpha * self.mean)

    def spread(self, alpha, sigma):
        return alpha**2 * self.var + sigma**2 + 1e-12

    def end(self, x, alpha, sigma):
        """Where the path of the probability flow through x ends."""
        return self.mean + (x - alpha * self.mean) * (self.var / self.spread(alpha, sigma)).sqrt()

    def noisy(self, level, n=512):
        alpha, sigma = (part.reshape(-1, 1) for part in self.at_level(level))
        return alpha * self.mean + self.spread(alpha, sigma).sqrt() * torch.randn(n, 1, dtype=torch.float64)


def consistency(teacher, network, intervals):
    module, n = load("consistency"), 512
    segments = module.Segments(teacher, intervals)
    segment, interval = torch.randint(teacher.steps, (n,)), torch.randint(segments.count, (n,))
    noisy = teacher.noisy(segments.levels(segment, interval)[0], n)
    return module.consistency_loss(segments, network, network, noisy, segment, interval).item()


def test_an_exact_consistency_function_has_no_loss():
    """Of a single point, whatever the intervals, and however many segments; of a normal the solver's own error."""
    torch.manual_seed(0)
    for nodes in ((990.0, 0.0), (990.0, 400.0, 0.0)):
        point = Normal(mean=0.3, var=0.0, nodes=nodes)
        assert consistency(point, lambda x, *level: torch.full_like(x, 0.3), 6) == pytest.approx(0, abs=1e-9)
    normal = Normal(mean=0.1, var=0.09)
    exact, teacher = consistency(normal, normal.end, 64), consistency(normal, lambda x, a, s: normal.mean + 0 * x, 64)
    assert exact < 0.01 * teacher


def test_the_solver_is_of_second_order():
    module, normal = load("consistency"), Normal(mean=0.1, var=0.09)
    x = normal.noisy(torch.tensor([900.0]))
    errors = []
    for count in (8, 16):
        levels, at = torch.linspace(900, 500, count + 1), x
        for upper, lower in zip(levels[:-1], levels[1:], strict=True):
            at = module.solver_step(normal, at, upper[None], lower[None])
        ends = [normal.end(y, *normal.at_level(torch.tensor(level))) for y, level in ((x, 900.0), (at, 500.0))]
        errors.append((ends[0] - ends[1]).abs().mean().item())
    assert 3 < errors[0] / errors[1] < 5


def test_levels_above_the_first_node_are_told_as_below_it():
    module, student = load("consistency"), Normal(nodes=(800.0, 500.0, 0.0))
    segments = module.Segments(student, 8)
    upper, lower, end = segments.levels(torch.tensor([0, 0, 1]), torch.tensor([3, 0, 3]))
    assert upper.tolist() == [990, 622.5, 500] and lower.tolist() == [867.5, 500, 375] and end.tolist() == [500, 500, 0]
    assert segments.told(upper, torch.tensor([0, 0, 1])).tolist() == pytest.approx([800, 575, 500])
    segments.clamped = True
    assert segments.told(upper, torch.tensor([0, 0, 1])).tolist() == [800, 622.5, 500]


def test_the_gradient_of_distribution_matching():
    torch.manual_seed(0)
    x = torch.randn(4, 1, 2, 2, requires_grad=True)
    wanted, fake = torch.randn(2, 4, 1, 2, 2)
    load("dmd2").distillation(x, wanted, fake).backward()
    scale = (x - wanted).abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(x.grad, ((fake - wanted) / scale / x.numel()).detach())
    assert load("dmd2").distillation(x, wanted, wanted).item() == 0


def test_renoised_steps_keep_nothing_of_their_noise(teacher):
    common, dmd2 = load("common"), load("dmd2")
    student = common.Match(common.Task(steps=3, teacher=str(teacher), batch=2), eta=0.5).student
    dmd2.renoise(student)
    x, noise = torch.randn(2, 1, 8, 8), student.noise
    for k in range(2):
        law = student(x, torch.full((2,), k), common.no_cost)
        clean = student.denoised(x, noise.of_nodes[k].expand(2), None, student.network)
        torch.testing.assert_close(law.mean, noise.alphas[k + 1] * clean, rtol=1e-4, atol=1e-4)
        assert law.std.flatten()[0].item() == pytest.approx(noise.sigmas[k + 1].item(), rel=1e-5)


def test_the_product_makes_the_steps_that_were_learned(teacher, monkeypatch):
    """The average is what is saved; SFT-PG takes the noise of the last step out of it."""
    for name, settings in (("dmd2", {"renoised": 1}), ("sft_pg", {}), ("critic", {})):
        match = played(name, teacher, monkeypatch, **settings)
        product, student = match.average.module, match.student
        assert product.schedule.config.eta == student.schedule.config.eta
        torch.testing.assert_close(product.stds[:-1], student.stds[:-1])
        assert product.stds[-1].item() == pytest.approx(2e-3)


def test_the_fake_score_learns_the_mean_of_what_it_sees():
    """Of one point m the noise's error is ``alpha/sigma*|guess - m|`` squared."""
    dmd2, student = load("dmd2"), Normal(mean=0.3)
    x, level = torch.full((5, 1), 0.3, dtype=torch.float64), torch.full((5,), 500.0)
    found = dmd2.denoising(
        student, lambda noisy, *level: torch.full_like(noisy, 0.5), x, student.noisy(level, 5), level
    )
    assert found.item() == pytest.approx(0.2**2)


def test_reinforce_is_the_gradient_of_the_mean_cost():
    """``E (x - m)^2`` of x ~ N(theta, s^2) has the gradient ``2*(theta - m)``; a baseline only calms it."""
    torch.manual_seed(0)
    sft_pg, n = load("sft_pg"), 100_000
    gradients = {}
    for baseline in (0.0, 5.0):
        theta = torch.tensor(1.5, requires_grad=True)
        law = Transition(theta.expand(n, 1), torch.tensor(0.5))
        x = law.sample().detach()
        cost = (x + 0.5).square().flatten()
        sft_pg.policy_gradient(law, x, cost, torch.full((n,), baseline)).backward()
        gradients[baseline] = theta.grad.item()
    assert gradients == {0.0: pytest.approx(4.0, abs=0.2), 5.0: pytest.approx(4.0, abs=0.1)}


def test_the_critic_s_gradient_goes_through_all_steps():
    """A chain that multiplies by w three times ends at w^3, of derivative 3 w^2."""
    w = nn.Parameter(torch.tensor(2.0))
    student = SimpleNamespace(steps=3, step=lambda x, t, cost: w * x)
    end = load("critic").samples(student, torch.ones(1, 1))
    end.sum().backward()
    assert end.item() == 8 and w.grad.item() == 12


def call(module, monkeypatch, *words):
    """The command of a script; its exit status."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    try:
        module.main() if hasattr(module, "main") else load("measuring").play("", module.train, module.Settings())
    except SystemExit as stop:
        return stop.code
    return 0


TINY = ["--steps", 1, "--samples", 40, "--seed", 3]


def test_a_rival_s_command_measures_what_it_saved(teacher, monkeypatch, tmp_path, capsys):
    options = [*TINY, "--teacher", teacher, "--seconds", 0.5, "--batch", 4, "--out", tmp_path]
    assert call(load("consistency"), monkeypatch, *options, "--set", "intervals=4") == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["seconds"] >= 0.5 and result["settings"]["intervals"] == 4 and result["samples"] == 40
    assert {"fd_digits", "fd_digits_shares_right", "class_tv", "recall", "nearest_median"} <= set(result["metrics"])
    assert (tmp_path / "samples.png").exists() and result["stamp"]["seed"] == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rounds"] == result["rounds"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--set", "speed=3"], "there is no setting 'speed'"),
        (["--set", "intervals=few"], "few is no int"),
        (["--seconds", "0"], "0.0 is not positive"),
        (["--samples", "9"], "give 10 or more"),
        (["--extractor", "none.safetensors"], "none.safetensors"),
    ],
)
def test_wrong_options_are_told_in_one_line(words, reason, monkeypatch, tmp_path, capsys):
    assert call(load("consistency"), monkeypatch, "--out", tmp_path / "none", *words) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and reason in lines[0] and not (tmp_path / "none").exists()


def test_the_game_and_a_solver_are_measured_alike(teacher, write, monkeypatch, tmp_path):
    config = image_run(teacher)
    config["sampler"]["scheduler"]["steps"] = 1
    options = ["--config", write(config), "--rounds", 2, "--out", tmp_path / "ours"]
    assert call(load("ours"), monkeypatch, *TINY, *options) == 0
    options = ["--solver", "teacher-ddim", "--teacher", teacher, "--out", tmp_path / "ddim"]
    assert call(load("solver"), monkeypatch, *TINY, *options) == 0
    ours, ddim = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("ours", "ddim"))
    assert ours["stamp"] == ddim["stamp"] and ours["seconds"] > 0 and ours["rounds"] == 2
    assert ours["metrics"].keys() == ddim["metrics"].keys()
    assert call(load("solver"), monkeypatch, *TINY, "--solver", "teacher-none", "--out", tmp_path) == 2


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """few_steps.py on cells that cost nothing: what each was asked, and a way to call the script."""
    benchmark, asked = load("few_steps"), []

    def cell(command, **options):
        words = dict(zip(command[2::2], command[3::2], strict=False))
        asked.append(command)
        sets = command[command.index("--set") + 1 :] if "--set" in command else []
        distance = 0.1 * (1 + int(words["--seed"])) / (2 if "rate=5e-05" in sets else 1)
        if "solver.py" in command[1]:
            distance = 2 / int(words["--steps"])
        names = ("fd_digits", "fd_digits_shares_right", "class_tv", "recall", "nearest_median")
        metrics = dict.fromkeys(names, distance) | {"fd_digits_floor": 0.008, "nearest_data_median": 2.0}
        result = {"steps": int(words["--steps"]), "seed": int(words["--seed"]), "seconds": 200.0 + int(words["--seed"])}
        result |= {"rounds": 1, "settings": {}, "samples": 40, "metrics": metrics}
        (out := Path(words["--out"])).mkdir(parents=True)
        save_grid(torch.zeros(4, 1, 8, 8), out / "samples.png")
        (out / "result.json").write_text(json.dumps(result | {"stamp": {"torch": "1", "seed": result["seed"]}}))
        return SimpleNamespace(returncode=int(words["--steps"] == "9"), stdout="error: no such steps\n")

    monkeypatch.setattr(subprocess, "run", cell)

    def main(*words):
        where = ["--out", tmp_path / "cells.json", "--folder", tmp_path / "cells"]
        return call(benchmark, monkeypatch, *where, *words)

    return SimpleNamespace(asked=asked, main=main, file=tmp_path / "cells.json")


def test_rivals_have_the_game_s_seconds_and_what_is_kept_is_not_done_again(measured, capsys):
    only = ["--steps", 4, "--seeds", 0, 1]
    assert "the game's own at 4 steps are not known" in measured.main("--only", "dmd2", *only)
    assert measured.main("--only", "ours", "dmd2_no_critic", *only) == 0
    rivals = [words for words in measured.asked if "dmd2.py" in words[1]]
    assert [words[words.index("--seconds") + 1] for words in rivals] == ["200.0", "200.0"]
    assert all("critic=0" in words for words in rivals) and len(measured.asked) == 4
    assert measured.main("--only", "ours", "dmd2_no_critic", *only) == 0 and len(measured.asked) == 4
    assert measured.main("--only", "dmd2_no_critic", "--again", *only) == 0 and len(measured.asked) == 6
    capsys.readouterr()
    assert measured.main("--table") == 0 and len(measured.asked) == 6
    assert "| ours | 4 | 0.15 (0.1, 0.2) |" in capsys.readouterr().out


def test_the_best_trial_with_seed_0_goes_on(measured, capsys):
    given = ["--only", "consistency", "--steps", 4, "--seconds", 60, "--seeds", 0, 1, "--trials", 4]
    assert measured.main(*given) == 0
    cells = json.loads(measured.file.read_text())["cells"]
    assert len(cells) == 5 and "consistency/4/1/rate=5e-05" in cells
    assert "| consistency (rate=5e-05) | 4 | 0.075 (0.05, 0.1) |" in capsys.readouterr().out


def test_free_solvers_say_what_a_student_is_like(measured, tmp_path, capsys):
    assert measured.main("--only", "ours", "free", "--steps", 4, "--seeds", 3, "--pictures", tmp_path / "p") == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("| ours")).split(" | ")[7] == "5 steps"
    assert lines[-1].startswith("| data drawn again | | 0.008 |")
    assert {file.name for file in (tmp_path / "p").iterdir()} == {
        "distance.png", "samples_t2.png", "samples_t4.png"
    }  # fmt: skip


def test_a_cell_that_fails_stops_no_other(measured):
    assert "error: ours/9/0: error: no such steps" in measured.main("--only", "ours", "--steps", 9, 2, "--seeds", 0)
    assert list(json.loads(measured.file.read_text())["cells"]) == ["ours/2/0"]


def test_cells_that_were_measured_otherwise_are_refused(measured):
    assert measured.main("--only", "ours", "--steps", 4, "--seeds", 0) == 0
    kept = json.loads(measured.file.read_text())
    measured.file.write_text(json.dumps(kept | {"stamp": kept["stamp"] | {"torch": "0"}}))
    told = measured.main("--only", "ours", "--steps", 4, "--seeds", 1)
    assert "measured otherwise: torch" in told
