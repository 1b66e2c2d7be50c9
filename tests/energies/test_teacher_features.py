"""The energy on the teacher's own encoder, for every kind of teacher."""

import copy

import pytest
import torch
from dxmi_plugins.energies.encoder import NoiseClock, blocks_of, stem_of
from dxmi_plugins.energies.teacher_features import TeacherFeatures
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from safetensors.torch import load_file
from tiny import KINDS, folders

from dxmi.api import ConfigError, noise_level
from dxmi.game.algorithm import build_game
from dxmi.runs import load_energy, save_energy

FIRST_HALF = {"dit": 1, "sd3": 1}  # of two blocks; UNets have two on the way down and a middle
every = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folders(tmp_path_factory)


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


def test_states_of_another_size_or_space_are_refused(folder):
    energy = TeacherFeatures(folder("ddpm"), width=8)
    for shape in [(5, 8, 8), (1, 4, 8)]:
        with pytest.raises(ConfigError, match=rf"^teacher: its states are \(C,H,W\) \(1, 8, 8\), not \({shape[0]}, "):
            energy(torch.randn(2, *shape))


def test_an_error_in_the_network_is_the_networks(folder):
    energy = TeacherFeatures(folder("classes"), width=8)
    with pytest.raises(IndexError):
        energy(torch.randn(2, 1, 8, 8), cond=torch.tensor([0, 99]))
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


SD3_TAPS = 2  # one block: its text's stream and its image's
noised = pytest.mark.parametrize("heads", ["plain", "pool", "conv"])


def levels_of(kind, folder):
    levels = load_teacher(folder(kind)).levels
    return levels, noise_level(levels.alphas, levels.sigmas).float()


@every
def test_the_teachers_own_levels_are_told_as_its_timesteps(kind, folder):
    levels, known = levels_of(kind, folder)
    timestep, scale = NoiseClock(levels)(known)
    assert torch.equal(timestep, levels.timesteps.to(timestep.dtype))
    assert timestep.is_floating_point() == levels.timesteps.is_floating_point()
    assert torch.equal(scale, torch.ones_like(known))


@pytest.mark.parametrize("kind", ["ddpm", "edm", "sd3", "annealed"])
def test_levels_between_are_told_the_nearest_timestep_or_one_between(kind, folder):
    """To a third of the way whole numbers stay; others go a third of the way. Beyond the last there is the last."""
    levels, known = levels_of(kind, folder)
    third = known[:-1] + (known[1:] - known[:-1]) / 3
    timestep, _ = NoiseClock(levels)(third)
    low, high = levels.timesteps[:-1], levels.timesteps[1:]
    wanted = low + (high - low) / 3 if levels.timesteps.is_floating_point() else low
    torch.testing.assert_close(timestep, wanted.to(timestep.dtype), rtol=1e-3, atol=1e-3)
    assert NoiseClock(levels)(torch.tensor([1000.0]))[0] == levels.timesteps[-1].to(timestep.dtype)


def test_noised_states_are_shown_as_they_are_and_clean_ones_at_the_cleanest_level(folder):
    x, seen = state("ddpm", folder)[0], []
    energy = built("ddpm", folder, x, None, noised=True)
    levels, known = levels_of("ddpm", folder)
    energy.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    energy(x, torch.stack([torch.zeros(()), known[0], known[700]]))
    (shown, timestep), alpha = seen[-1], levels.alphas[0].float()
    assert timestep.tolist() == [0, 0, 700]
    torch.testing.assert_close(shown, torch.stack([alpha * x[0], x[1], x[2]]))
    assert torch.equal(energy(x), energy(x, torch.zeros(3)))  # None is clean


@noised
@every
def test_every_resolution_is_seen_and_all_of_it_learns(kind, heads, folder):
    """Conditions, text streams and attention included, through second derivatives as gradient penalties take."""
    x, cond = state(kind, folder)
    energy = built(kind, folder, x, cond, noised=True, tune=True, heads=heads)
    assert energy.reads_noise
    stem = 0 if heads == "plain" else len(stem_of(load_teacher(folder(kind)).network))
    found = energy.features(x, cond)
    assert len(found) == {"dit": 1, "sd3": SD3_TAPS}.get(kind, 3 + stem)
    if stem:
        assert [h.shape[2:] for h in found[:2]] == [x.shape[2:], (x.shape[2] // 2, x.shape[3] // 2)]
    x, t = x.requires_grad_(), torch.tensor([0.0, 400.0, 999.0])
    e = energy(x, t, cond)
    (gradient,) = torch.autograd.grad(e.sum(), x, create_graph=True)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    (e.square().sum() + gradient.square().sum()).backward()
    assert not [name for name, p in energy.named_parameters() if p.grad is None]


@noised
def test_the_level_is_told_to_network_and_head(heads, folder):
    x, _ = state("ddpm", folder)
    energy = built("ddpm", folder, x, None, noised=True, heads=heads)
    same, t = x[:1].expand_as(x), torch.tensor([0.0, 300.0, 800.0])
    assert len(set(energy(same, t).tolist())) == 3
    if heads == "plain":
        return
    maps = [h[:1] for h in energy.features(x)]
    assert energy.head(maps, t[1:2]) != energy.head(maps, t[2:])


@noised
@pytest.mark.parametrize("tune", [False, True])
def test_noised_energies_are_kept(heads, tune, folder, tmp_path):
    x, cond = state("ddpm", folder)
    options = {"width": 8, "tune": tune, "noised": True, "heads": heads}
    energy, t = built("ddpm", folder, x, cond, **options), torch.tensor([0.0, 300.0, 800.0])
    e = energy(x, t)
    save_energy(energy, {"name": "teacher_features", "teacher": folder("ddpm"), **options}, 4, tmp_path)
    saved = load_file(tmp_path / "model.safetensors").keys()
    assert saved == {name for name, p in energy.named_parameters() if p.requires_grad}
    assert any(name.startswith("network.") for name in saved) == tune
    assert torch.equal(load_energy(tmp_path)(x, t), e) and torch.equal(copy.deepcopy(energy)(x, t), e)


def test_energies_of_before_load(folder):
    """What earlier versions saved of a frozen encoder's energy, and what it gave."""
    x, _ = state("ddpm", folder)
    energy = TeacherFeatures(folder("ddpm"), width=2)
    weights = {"head.0.weight": torch.linspace(-1, 1, 2 * 48).view(2, 48), "head.0.bias": torch.zeros(2)}
    energy.load_state_dict(weights | {"head.2.weight": torch.ones(1, 2), "head.2.bias": torch.zeros(1)})
    parts = []
    for h in energy.features(x):
        both = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        parts.append((both - both.mean(1, keepdim=True)) / (both.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt())
    wanted = torch.nn.functional.silu(torch.cat(parts, 1) @ weights["head.0.weight"].T).sum(1)
    torch.testing.assert_close(energy(x), wanted)
    assert not energy.reads_noise and torch.equal(energy(x, torch.full((3,), 4)), energy(x))  # steps are not read


def test_a_sampler_learns_through_the_fused_attention(folder):
    """Penalties ask at a leaf, and get plain attention; what comes from a sampler keeps the kernels."""
    x, cond = state("dit", folder)
    energy, asked = built("dit", folder, x, cond), []
    attention = energy.network.transformer_blocks[0].attn1
    attention.register_forward_pre_hook(lambda *_: asked.append(torch.backends.cuda.flash_sdp_enabled()))
    energy(x.requires_grad_(), cond=cond)
    energy(x * 1, cond=cond)
    assert asked == [False, True]
