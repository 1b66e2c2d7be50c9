"""How often a value learns from one rollout, and how much memory a run may take."""

import re
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.samplers.vgs import VGS
from torch import nn

from dxmi.api import ConfigError, Energy
from dxmi.cli.main import main
from dxmi.config import GameConfig, LearningConfig, RatesConfig
from dxmi.config.machine import check_memory, free_memory
from dxmi.game.algorithm import build_game

RATE = 0.1


class Flat(Energy):
    """E = 0: no drift and no running cost, so what V_T-1 should be is 0 and what the others should be the next V."""

    event_shape = (1,)

    def forward(self, x, t=None, cond=None):
        return 0 * x.sum(1)


class Constant(Flat):
    """V = c at every step: gradient descent by the rate r makes c(1 - 2r) of it where the target is 0."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.ones(()))

    def forward(self, x, t=None, cond=None):
        return self.c + 0 * x.sum(1)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("steps", "trace", "a_time"),
    [(1, 0.0, 1), (3, 0.0, 1), (3, 1.0, 3)],  # TD(0) has the target 0 at the last step alone, TD(1) at all three
)
def test_the_value_learns_so_many_times_from_a_rollout(times, steps, trace, a_time):
    learning = LearningConfig(optimizer="SGD", betas=None, lr=RatesConfig(value=RATE))
    settings, value = GameConfig(warmup=0, sweep=True, trace=trace, value_steps=times), Constant()
    game = build_game(Flat(), VGS(steps, "ve"), value, settings, learning, Accelerator(cpu=True))
    game.round(None, (5, 1))
    assert value.c.item() == pytest.approx((1 - 2 * RATE) ** (times * a_time), rel=1e-6)


def test_none_is_too_few():
    with pytest.raises(ConfigError, match=re.escape("game.value_steps: 0 is not positive")):
        GameConfig(value_steps=0)


DENSITY = {"name": "gaussian_mixture", "preset": "eight_gaussians"}
VGS_RUN = {"energy": DENSITY, "sampler": "vgs", "value": {"name": "mlp", "time": True}}
REPLAY = {"learn": "denoise", "fill": {"name": "smc", "steps": 2}}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"data": {"density": DENSITY}, "energy": "mlp", "sampler": "langevin"}, "there is no value to learn"),
        ({"energy": DENSITY, "sampler": {"name": "policy", "shape": [2]}}, "there is no value to learn"),
        ({**VGS_RUN, "replay": REPLAY}, "rollouts teach nothing with replay.learn: denoise"),
    ],
)
def test_it_is_refused_where_no_value_learns_from_rollouts(config, says, write, tmp_path, capsys):
    path = write({**config, "game": {"value_steps": 3}, "tracker": None})
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dxmi: game.value_steps: ") and says in said and said.count("\n") == 1


def run(**parts):
    """What ``check_memory`` reads of a run."""
    given = {"data": None, "replay": None, "batch_size": 10, "game": SimpleNamespace(start="noise", chains=1000)}
    return SimpleNamespace(**given | parts)


@pytest.mark.parametrize(
    ("parts", "states"),
    [
        ({}, 0),
        ({"data": SimpleNamespace(batch_size=50), "game": SimpleNamespace(start="chains", chains=400)}, 450),
        ({"replay": SimpleNamespace(size=300, batch=20)}, 620),  # old and new states side by side
    ],
)
def test_memory_is_counted_with_the_copies(parts, states, monkeypatch):
    """States of 2 x 3 float32 numbers: as many bytes as they take are enough, and one fewer is not."""
    for free, fits in ((states * 24, True), (states * 24 - 1, states == 0)):
        monkeypatch.setattr("dxmi.config.machine.free_memory", lambda free=free: free)
        if fits:
            check_memory(run(**parts), (2, 3), torch.device("cpu"))
        else:
            with pytest.raises(ConfigError, match="states of 6 numbers take"):
                check_memory(run(**parts), (2, 3), torch.device("cpu"))


def test_a_container_has_what_its_limit_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=900))
    assert free_memory(tmp_path) == 900  # no cgroup there
    for limit, free in (("max", 900), ("1000", 350), ("5000", 900), ("600", 0)):
        for name, text in {"max": limit, "current": "700", "stat": "anon 600\ninactive_file 50"}.items():
            (tmp_path / f"memory.{name}").write_text(text + "\n")
        assert free_memory(tmp_path) == free
