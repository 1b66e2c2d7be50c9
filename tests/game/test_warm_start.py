"""The teacher's own paths, learned before the game and kept beside it (MATH 3.8)."""

import pytest
import torch
from accelerate import Accelerator
from dxmi_plugins.energies.conv import ConvEnergy
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora
from dxmi_plugins.schedulers.ancestral import AncestralScheduler

from dxmi.api import Energy
from dxmi.api.noise import generator
from dxmi.config import GameConfig, LearningConfig, RatesConfig, WarmStartConfig
from dxmi.game.algorithm import build_game

SHAPE = (4, 1, 8, 8)


def game_of(teacher, lora=None, settings=None, **options):
    """A game of a tiny student, with a warm start."""
    torch.manual_seed(0)
    energy = ConvEnergy(4, 2, time="noise")
    energy(torch.zeros(SHAPE))
    sampler = DiffusionSampler(str(teacher), AncestralScheduler(3, "midpoints"), lora=lora)
    given = {"paths": 24, "steps": 9, "rounds": 60, "rate": 1e-2, **(settings or {})}
    config = GameConfig(value="contrast", warmup=0, warm_start=WarmStartConfig(**given), **options)
    learning = LearningConfig(lr=RatesConfig(sampler=1e-3))
    return build_game(energy, sampler, None, config, learning, Accelerator(cpu=True))


def path_losses(game):
    """Of each transition, over all paths."""
    xs, sampler = game.warm_start.xs, game.players.sampler
    with torch.no_grad():
        t = [torch.full((xs.shape[1],), k) for k in range(sampler.steps)]
        return torch.stack([sampler.path_loss(xs[k], t[k], xs[k + 1]) for k in range(sampler.steps)])


def test_paths_are_drawn_once_and_by_their_seed_alone(teacher):
    drawn = []
    for seed in (3, 3, 4):
        game = game_of(teacher)
        torch.manual_seed(len(drawn))  # torch's own numbers are nothing to them
        game.warm_start.draw(generator(seed, 0))
        drawn.append(game.warm_start.xs)
    assert drawn[0].shape == (4, 24, 1, 8, 8) and not drawn[0].requires_grad
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_drawing_takes_none_of_torchs_own_noise(teacher):
    """A resumed run draws them after it has read torch's state from its checkpoint."""
    game = game_of(teacher)
    before = torch.get_rng_state()
    game.warm_start.draw(generator(0, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("lora", [None, Lora(rank=4, targets=["conv1", "conv2"])])
def test_learning_lowers_the_loss_of_every_transition_and_sets_the_average(teacher, lora):
    game = game_of(teacher, lora)
    players, steps = game.players, list(range(3))
    game.warm_start.draw(generator(0, 0))
    frozen = [p.clone() for p in players.sampler.parameters() if not p.requires_grad]
    before, stds = path_losses(game), players.sampler.stds.detach().clone()
    losses = list(game.warm_start.learn(8))
    assert len(losses) == 60 and all(isinstance(loss, float) for loss in losses)
    assert (path_losses(game) < 0.9 * before).all(), (before, path_losses(game))
    assert torch.equal(players.sampler.stds, stds)
    assert all(map(torch.equal, frozen, (p for p in players.sampler.parameters() if not p.requires_grad)))
    average = dict(players.ema.module.named_parameters())
    assert all(torch.equal(p, average[name]) for name, p in players.sampler.named_parameters())
    x = torch.randn(3, 1, 8, 8)
    laws = [each(x, torch.tensor(steps), None).mean for each in (players.sampler, players.ema.module)]
    torch.testing.assert_close(*laws)
    assert not players.optimizers["sampler"].state  # the game starts with none of its momenta


def test_each_transition_lands_on_its_own_paths_next_node(teacher, monkeypatch):
    """With the conditions of those paths; every one of them is among those that are learned from."""
    game, seen = game_of(teacher), set()
    rows = torch.arange(24.0)
    game.warm_start.xs = (100 * torch.arange(4.0)[:, None] + rows)[..., None, None, None].expand(4, 24, 1, 8, 8)
    game.warm_start.cond, game.warm_start.generator = rows, None

    def path_loss(x, t, x_next, cond):
        assert x.shape == (40, 1, 8, 8) and torch.equal(x_next, x + 100) and torch.equal(x[:, 0, 0, 0], 100 * t + cond)
        seen.update(zip(t.tolist(), cond.tolist(), strict=True))
        return 0 * sum(p.sum() for p in game.players.sampler.parameters())

    monkeypatch.setattr(game.players.sampler, "path_loss", path_loss)
    list(game.warm_start.learn(40))
    assert seen == {(k, float(row)) for k in range(3) for row in range(24)}


def test_the_learning_rate_rises_and_falls_once(teacher, monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def spy(self, closure=None):
        rates.append(self.param_groups[0]["lr"])
        return step(self, closure)

    game = game_of(teacher)
    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    game.warm_start.draw(generator(0, 0))
    list(game.warm_start.learn(2))
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-2) and 10 < top < 30 and len(rates) == 60
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates[0], rates[-1]) < 1e-3


def test_with_float16_every_step_goes_by_the_scaler(teacher, monkeypatch):
    """As on a GPU; a gradient that overflows is skipped, there too."""
    game = game_of(teacher, settings={"rounds": 4})
    accelerator = game.players.accelerator
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    monkeypatch.setattr(accelerator, "scaler", scaler)
    monkeypatch.setattr(accelerator, "unscale_gradients", lambda of: scaler.unscale_(getattr(of, "optimizer", of)))
    game.warm_start.draw(generator(0, 0))
    learning = game.warm_start.learn(8)
    assert next(learning) > 0 and scaler.get_scale() == 2.0**8
    weights = [p.detach().clone() for p in game.players.sampler.parameters()]

    def overflow(*given):
        p = game.players.sampler.log_std.sum()
        return (p - p.detach()) * 1e38  # scaled, its gradient is infinite

    monkeypatch.setattr(game.warm_start, "loss", overflow)
    assert next(learning) == 0 and scaler.get_scale() == 2.0**7
    assert all(map(torch.equal, weights, game.players.sampler.parameters()))


def test_a_loss_that_is_not_finite_stops_before_its_step(teacher):
    game = game_of(teacher)
    game.warm_start.draw(generator(0, 0))
    game.warm_start.xs[:] = torch.nan
    before = [p.clone() for p in game.players.sampler.parameters()]
    with pytest.raises(
        FloatingPointError, match=r"^sampler: the loss of the warm start is not finite; lower game.warm"
    ):
        next(game.warm_start.learn(4))
    assert all(map(torch.equal, before, game.players.sampler.parameters()))


def test_the_paths_are_kept_at_one_transition_of_each_round_in_turn(teacher):
    game = game_of(teacher, settings={"keep": 3.0})
    game.warm_start.draw(generator(0, 0))
    x = torch.zeros(5, 1, 8, 8)
    for rounds in range(4):
        game.players.rounds = rounds
        found = [game.warm_start(None, k, x) for k in range(3)]
        assert [k for k in range(3) if found[k] is not None] == [rounds % 3]
        loss, log = found[rounds % 3]
        assert loss.item() == pytest.approx(3 * log["path_loss"].item()) and not log["path_loss"].requires_grad


class Nothing(Energy):
    """E = 0 at every noise level, with a gradient of zeros."""

    reads_noise = True

    def forward(self, x, t=None, cond=None):
        return 0 * x.flatten(1).sum(1)


def test_beside_the_game_the_path_loss_counts_with_its_weight(teacher):
    """Where the sampler has nothing else to descend, its gradient is that of the path loss, times keep."""
    found = {}
    for keep in (0.0, 1.0, 4.0):
        game = game_of(teacher, settings={"keep": keep}, tau1=0.0, tau2=0.0)
        game.warm_start.draw(generator(0, 0))
        game.players.energy = Nothing()
        log = game.round(torch.zeros(SHAPE), SHAPE)
        assert ("path_loss" in log) == (keep > 0)
        found[keep] = log["policy_gradient"].item()
    assert found[0] == 0 and found[1] > 0 and found[4] == pytest.approx(4 * found[1], rel=1e-4)
