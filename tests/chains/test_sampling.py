"""Chains on known densities: the diagnostics' numbers, the command and what it refuses."""

import json

import numpy as np
import pytest
import torch
import yaml
from arviz_stats.base import array_stats
from conftest import ROOT
from dxmi_plugins.energies.known.banana import Banana
from dxmi_plugins.samplers.mcmc.mala import MALA
from safetensors.torch import load_file
from torch import Generator

from dxmi.api import Cost, Energy, Sampler
from dxmi.chains.density import run_chains
from dxmi.chains.diagnostics import convergence
from dxmi.cli.main import main


class Normal(Energy):
    event_shape = (2,)
    log_z = float(np.log(2 * np.pi))

    def forward(self, x, t=None, cond=None):
        return x.square().sum(1) / 2


class Drift(Sampler):
    """x_{t+1} = x_t + 1, from 0; chain 3 leaves the numbers after step ``bad``."""

    steps, stationary, warmup = 20, True, 15

    def __init__(self, bad=None):
        super().__init__()
        self.bad = bad

    def initial(self, shape, generator=None):
        return torch.zeros(shape)

    def step(self, x, t, cost_to_go, generator=None, cond=None):
        out = x + 1
        if self.bad is not None and int(t[0]) >= self.bad:
            out[3] = torch.nan
        return out

    def report(self):
        return {"acceptance": torch.tensor([0.5, 0.0, 1.0, 0.5, 0.25]), "log_z": torch.tensor(1.5)}


def ar1(phi, draws, chains, seed=0):
    """Stationary chains x' = phi x + sqrt(1 - phi^2) eps, (draws, chains, 1)."""
    noise = torch.randn(draws, chains, 1, generator=Generator().manual_seed(seed), dtype=torch.float64)
    x = [noise[0]]
    for eps in noise[1:]:
        x.append(phi * x[-1] + (1 - phi**2) ** 0.5 * eps)
    return torch.stack(x)


def test_effective_sample_size_of_an_autoregression():
    found = convergence(ar1(0.9, 20_000, 4))
    assert found["draws"] == 80_000
    assert found["ess_bulk"][0] / 80_000 == pytest.approx((1 - 0.9) / (1 + 0.9), rel=0.08)  # TOOLBOX row 38: .0526
    assert found["r_hat"][0] == pytest.approx(1, abs=0.005)


def test_one_shifted_chain_of_eight_shows_in_r_hat():
    traces = ar1(0.0, 1000, 8)
    assert convergence(traces)["r_hat"][0] < 1.01
    traces[:, 3] += 3
    assert convergence(traces)["r_hat"][0] > 1.05


def test_draws_come_after_the_warm_up_and_samples_are_the_last_states():
    seen = []
    drawn = run_chains(Normal(), Drift(), 5, draws=3, watch=2, tell=seen.append)
    assert drawn.samples.equal(torch.full((5, 2), 20.0)) and drawn.energies.equal(torch.full((5,), 400.0))
    assert drawn.traces[:, 0, 0].tolist() == [16, 18, 20] and drawn.traces.shape == (3, 2, 2)
    assert seen[-1] == 20
    found = drawn.diagnostics
    assert (
        found["acceptance"] == pytest.approx({"mean": 0.45, "min": 0.0, "max": 1.0})
        and found["chains_that_never_moved"] == 1
    )
    assert found["log_z"] == 1.5 and found["log_z_exact"] == pytest.approx(1.8379, abs=1e-4)
    json.dumps(found)


def test_a_chain_that_leaves_the_numbers_is_named():
    with pytest.raises(FloatingPointError, match="chain 3 is not finite at step 6"):
        run_chains(Normal(), Drift(bad=5), 5)
    start = torch.zeros(5, 2)
    assert run_chains(Normal(), Drift(), 5, start=start).samples.equal(torch.full((5, 2), 20.0))
    start[4, 1] = torch.inf
    with pytest.raises(ValueError, match="start: chain 4 is not finite"):
        run_chains(Normal(), Drift(), 5, start=start)
    with pytest.raises(ValueError, match="start: it is"):
        run_chains(Normal(), Drift(), 5, start=start[:2])


class Wall(Normal):
    """Infinite where x_1 < 0."""

    def forward(self, x, t=None, cond=None):
        return super().forward(x).where(x[:, 0] >= 0, torch.inf)


@pytest.mark.parametrize(("start", "where"), [([[1.0, 0], [-1, 0]], "start"), ([[1.0, 0], [1, 0]], "end")])
def test_chains_that_start_or_end_at_infinite_energies_are_named(start, where):
    class Leave(Drift):
        def step(self, x, t, cost_to_go, generator=None, cond=None):
            return x * torch.tensor([[1.0], [-1.0]]) if int(t[0]) == 0 else x

    with pytest.raises(FloatingPointError, match=f"chain 1 has the energy inf at the {where}"):
        run_chains(Wall(), Leave(), 2, start=torch.tensor(start))


def test_the_tail_is_that_of_the_outer_twentieths():
    traces = ar1(0.9, 4000, 4)
    array = traces[..., 0].T.numpy()
    tails = [array_stats.ess(array, method="quantile", prob=p, chain_axis=0, draw_axis=1) for p in (0.05, 0.95)]
    assert convergence(traces)["ess_tail"][0] == pytest.approx(float(min(tails)))


def test_an_energy_of_the_wrong_shape_is_named():
    class Column(Normal):
        def forward(self, x, t=None, cond=None):
            return super().forward(x)[:, None]

    with pytest.raises(ValueError, match=r"energy: Column returns \(2, 1\)"):
        run_chains(Column(), Drift(), 5)


def test_warnings_say_when_not_to_believe_the_samples(tmp_path, capsys):
    arguments = ["sample", str(ROOT / "configs" / "banana_mala.yaml"), "--sampler.start", "0.1", "-n", "50"]
    assert main([*arguments, "--steps", "12", "--sampler.step_size", "0.001", "--out", str(tmp_path / "short")]) == 0
    text = (tmp_path / "short" / "diagnostics.json").read_text()
    found = json.loads(text, parse_constant=pytest.fail)  # no NaN, no Infinity
    assert any("R-hat" in line for line in found["warnings"])
    assert any("of exact draws" in line for line in found["warnings"])
    assert "warning: R-hat" in capsys.readouterr().err
    assert found["energy_exact"]["mean"] == pytest.approx(2.84, abs=0.05)
    still = run_chains(Normal(), Drift(), 5).diagnostics
    assert any("1 of 5 chains never moved" in line for line in still["warnings"])


def test_exact_answers_at_temperature_one_are_not_held_against_other_temperatures():
    hot = run_chains(Banana(), MALA(steps=300, step_size=0.3, tau=2.0), 600).diagnostics
    assert "energy_exact" not in hot and "log_z_exact" not in hot
    cold = run_chains(Banana(), MALA(steps=300, step_size=0.3), 600).diagnostics
    assert cold["log_z_exact"] == 0 and cold["energy_exact"]["std"] == pytest.approx(1, abs=0.05)


def test_chains_that_stand_still_leave_no_infinities():
    found = convergence(torch.arange(3.0).repeat(8, 1)[..., None])
    assert found["r_hat"] == [None]
    json.dumps(found, allow_nan=False)


def test_an_energy_without_gradient_is_named():
    class Flat(Normal):
        def forward(self, x, t=None, cond=None):
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="energy: Flat has no gradient"):
        Cost(Flat(), None, 1).with_gradient(torch.zeros(2, 2), torch.zeros(2))


def test_cost_joins_energy_and_value_with_their_gradients():
    class Value(Normal):
        def forward(self, x, t=None, cond=None):
            return (t + 1) * x.square().sum(1)

    x, t = torch.randn(4, 2), torch.tensor([0, 1, 2, 2])
    J = Cost(Normal(), Value(), 2)
    squares = x.square().sum(1)
    torch.testing.assert_close(J(x, t), squares * torch.tensor([1, 2, 0.5, 0.5]))
    for k, factor in ((1, 4), (2, 1)):
        e, g = J.with_gradient(x, torch.full((4,), k))
        torch.testing.assert_close(g, factor * x)
        torch.testing.assert_close(e, J(x, torch.full((4,), k)))


def test_the_command_writes_samples_diagnostics_and_a_picture(tmp_path, capsys):
    out = tmp_path / "banana"
    argument = [str(ROOT / "configs" / "banana_mala.yaml"), "-n", "300", "--steps", "300", "--out", str(out)]
    assert main(["sample", *argument, "--sampler.warmup", "50", "--draws", "50"]) == 0
    printed = capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "diagnostics.json",
        "picture.png",
        "run.yaml",
        "samples.safetensors",
    ]
    saved = load_file(out / "samples.safetensors")
    assert saved["samples"].shape == (300, 2) and saved["energies"].shape == (300,)
    found = json.loads((out / "diagnostics.json").read_text())
    assert found["chains"] == 300 and found["steps"] == 300 and found["log_z_exact"] == 0
    assert 0 < found["acceptance"]["mean"] < 1 and len(found["r_hat"]) == len(found["ess_tail"]) == 2
    assert '"step_size"' in printed
    assert yaml.safe_load((out / "run.yaml").read_text())["sampler"]["warmup"] == 50
    again = [str(out / "run.yaml"), "--out", str(tmp_path / "again")]
    assert main(["sample", *again]) == 0
    assert load_file(tmp_path / "again" / "samples.safetensors")["samples"].equal(saved["samples"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler.step_size", "0"], "step_size: 0"),
        (["--sampler.tau", "-1"], "tau: -1"),
        (["--steps", "0"], "steps: 0"),
        (["-n", "0"], "-n: give at least 1"),
        (["--energy", "conv"], "energy: ConvEnergy is no known density"),
        (["--draws", "0"], "draws: 0 is not positive"),
        (["--sampler", "annealed_langevin"], "value: Banana"),
        (["--energy.bb", "0"], "energy.bb: no such key"),
    ],
)
def test_what_the_command_refuses(arguments, says, tmp_path, capsys):
    config = str(ROOT / "configs" / "banana_mala.yaml")
    assert main(["sample", config, "--out", str(tmp_path / "out"), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_explains_the_keys_of_a_density(capsys):
    assert main(["sample", str(ROOT / "configs" / "banana_mala.yaml"), "--help"]) == 0
    text = capsys.readouterr().out
    assert "--sampler.drift_clip" in text and "--energy.b" in text and "--print-config" in text
    assert main(["sample", "--help"]) == 0 and "-n" in capsys.readouterr().out
    assert main(["sample"]) == 2 and "sample: give" in capsys.readouterr().err
    assert main(["sample", str(ROOT), "--print_config"]) == 2 and "--print-config" in capsys.readouterr().err


def test_a_folder_that_is_there_stays_as_it_is(tmp_path, capsys):
    assert main(["sample", str(ROOT / "configs" / "banana_mala.yaml"), "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err and not list(tmp_path.iterdir())
