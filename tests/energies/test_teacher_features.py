"""The energy on the teacher's own encoder, for every kind of teacher."""

import copy

import pytest
import torch
from dxmi_plugins.energies.teacher_features import TeacherFeatures, blocks_of
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from safetensors.torch import load_file
from tiny import KINDS, tiny

from dxmi.api import ConfigError
from dxmi.game.algorithm import build_game
from dxmi.runs import load_energy, save_energy

FIRST_HALF = {"dit": 1, "sd3": 1}  # of two blocks; UNets have two on the way down and a middle
every = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a kind of teacher lies."""
    made = {}

    def find(kind):
        if kind not in made:
            made[kind] = str(tiny(kind, tmp_path_factory.mktemp(kind)))
        return made[kind]

    return find


def state(kind, folder, n=3):
    """X (n,C,H,W) and a condition of the teacher."""
    torch.manual_seed(1)
    teacher = load_teacher(folder(kind))
    about = torch.arange(n) + 1 if kind in ("classes", "dit") else ["one", "seven", "a nine"][:n]
    return torch.randn(n, *teacher.shape), teacher.conditions.encode(about, torch.device("cpu"))


def built(kind, folder, x, cond, **options):
    torch.manual_seed(2)
    energy = TeacherFeatures(folder(kind), **{"width": 8, **options})
    energy(x, cond=cond)
    return energy


@every
def test_features_are_those_of_the_whole_network(kind, folder):
    """Hooks on the untouched network of the pipeline see the same blocks' outputs, and then run its decoder."""
    x, cond = state(kind, folder)
    energy, teacher, seen = built(kind, folder, x, cond), load_teacher(folder(kind)), []

    def keep(block, inputs, output):
        first = output[-1 if kind == "sd3" else 0] if isinstance(output, tuple) else output
        seen.append(first)

    stack = blocks_of(teacher.network)[: FIRST_HALF.get(kind, 3)]
    for block in stack:
        block.register_forward_hook(keep)
    with torch.no_grad():
        timestep = teacher.levels.timesteps[:1].expand(len(x))
        timestep = timestep if kind != "edm" else timestep.float()
        teacher.call(teacher.network, teacher.levels.alphas[0].float() * x, timestep, cond)
        found = energy.features(x, cond)
    assert len(seen) == FIRST_HALF.get(kind, 3)
    found = found[1::2] if kind == "sd3" else found  # there the text's stream comes along
    for mine, theirs in zip(found, seen, strict=True):
        torch.testing.assert_close(mine, theirs)


@every
def test_a_frozen_encoder_lets_the_gradient_through(kind, folder):
    x, cond = state(kind, folder)
    frozen, tuned = (built(kind, folder, x, cond, tune=tune) for tune in (False, True))
    learning = [name for name, p in frozen.named_parameters() if p.requires_grad]
    assert learning == ["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"]
    (e, gradient), (e_tuned, gradient_tuned) = frozen.with_gradient(x, None, cond), tuned.with_gradient(x, None, cond)
    torch.testing.assert_close((e, gradient), (e_tuned, gradient_tuned))
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    v = torch.randn_like(x).double()
    slope = [frozen.double()(x.double() + h * v, cond=doubled(cond)) for h in (-1e-4, 1e-4)]
    torch.testing.assert_close(
        (slope[1] - slope[0]) / 2e-4, (gradient * v).sum((1, 2, 3)), rtol=1e-3, atol=1e-6, check_dtype=False
    )


def doubled(cond):
    return cond.double() if cond is not None and cond.is_floating_point() else cond


@every
def test_a_tuned_encoder_learns_in_every_parameter(kind, folder):
    """So that processes wait for no gradient in vain: what the features do not depend on is not kept."""
    x, cond = state(kind, folder)
    energy = built(kind, folder, x, cond, tune=True)
    energy(x, cond=cond).square().sum().backward()
    idle = [name for name, p in energy.named_parameters() if p.grad is None]
    assert not idle
    whole = sum(p.numel() for p in load_teacher(folder(kind)).network.parameters())
    assert sum(p.numel() for p in energy.network.parameters()) < 0.8 * whole


@pytest.mark.parametrize("kind", ["ddpm", "classes", "sd3"])
@pytest.mark.parametrize("tune", [False, True])
def test_the_game_moves_what_is_to_learn(kind, tune, folder):
    """Two rounds of the game, the energy being the value too: all of its networks or the head alone."""
    x, cond = state(kind, folder)
    energy, sampler = built(kind, folder, x, cond, tune=tune), DiffusionSampler(folder(kind), AncestralScheduler(2))
    before = {name: p.clone() for name, p in energy.named_parameters()}
    game = build_game(energy, sampler)
    logs = [game.round(x, tuple(x.shape), cond) for _ in range(2)]
    assert all(value.isfinite() for log in logs for value in log.values())
    moved = {name for name, p in energy.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if tune or name.startswith("head.")}


@pytest.mark.parametrize("kind", ["classes", "dit", "sd", "sdxl", "sd3"])
def test_conditions_reach_the_encoder(kind, folder):
    x, cond = state(kind, folder)
    energy = built(kind, folder, x, cond)
    same = x[:1].expand_as(x)
    e = energy(same, cond=cond)
    assert min((e[0] - e[1]).abs(), (e[1] - e[2]).abs()) > 1e-6
    with pytest.raises(ConfigError, match="^teacher: it draws from labels or text"):
        energy(x)


def test_x_is_shown_at_the_cleanest_level(folder):
    x, seen = state("ddpm", folder)[0], []
    energy = built("ddpm", folder, x, None)
    energy.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    energy(x)
    shown, timestep = seen[-1]
    torch.testing.assert_close(shown, load_teacher(folder("ddpm")).levels.alphas[0].float() * x)
    assert timestep.tolist() == [0] * 3


@pytest.mark.parametrize(("kind", "blocks", "left"), [("ddpm", 1, 1), ("sd", 2, 2), ("ddpm", 3, 3), ("dit", 2, 2)])
def test_the_number_of_blocks_is_free(kind, blocks, left, folder):
    x, cond = state(kind, folder)
    energy = built(kind, folder, x, cond, blocks=blocks, tune=True)
    assert len(energy.features(x, cond)) == left
    energy(x, cond=cond).sum().backward()
    assert all(p.grad is not None for p in energy.parameters())


@pytest.mark.parametrize("tune", [False, True])
def test_copies_files_and_modes_keep_the_energy(tune, folder, tmp_path):
    x, cond = state("dit", folder)  # its network drops labels at random in training
    energy = built("dit", folder, x, cond, tune=tune)
    with torch.no_grad():
        for p in (p for p in energy.parameters() if p.requires_grad):
            p.mul_(1.1)
    e = energy(x, cond=cond)
    save_energy(energy, {"name": "teacher_features", "teacher": folder("dit"), "width": 8, "tune": tune}, 4, tmp_path)
    saved = load_file(tmp_path / "model.safetensors").keys()
    assert {name for name, p in energy.named_parameters() if p.requires_grad} == saved & dict(
        energy.named_parameters()
    ).keys()
    assert torch.equal(load_energy(tmp_path)(x, cond=cond), e)
    assert torch.equal(copy.deepcopy(energy)(x, cond=cond), e)
    assert torch.equal(energy.train()(x, cond=cond), e)
    assert not any(module._forward_hooks for module in energy.modules())


def test_an_error_in_the_network_is_the_networks(folder):
    x, _ = state("ddpm", folder)
    energy = built("ddpm", folder, x, None)
    with pytest.raises(RuntimeError, match="channels"):
        energy(torch.randn(2, 5, 8, 8))
    assert not any(module._forward_hooks for module in energy.modules())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"width": 0}, "^width: 0 is not positive"),
        ({"blocks": 4}, r"^blocks: 4 is not in 1\.\.3"),
        ({"blocks": 0}, r"^blocks: 0 is not in 1\.\.3"),
    ],
)
def test_impossible_options_are_refused(options, complaint, folder):
    with pytest.raises(ConfigError, match=complaint):
        TeacherFeatures(folder("ddpm"), **options)


def test_a_missing_teacher_is_refused():
    with pytest.raises(ConfigError, match="^teacher: there is no folder ./nowhere"):
        TeacherFeatures("./nowhere")
