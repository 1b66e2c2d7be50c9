"""Clean data by the teacher and by a network that learns what samples look like, at any noise level."""

import pytest
import torch
from dxmi_plugins.samplers.diffusion.guidance import guided
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from tiny import folders
from torch import Generator

from dxmi.api import KnowsScore, noise_level
from dxmi.api.noise import per_row

TEXT = ["sd", "sdxl", "sd3"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folders(tmp_path_factory)


def sampler(source, kind, **options):
    prompts = ["a digit"] if kind in TEXT else None
    return DiffusionSampler(source(kind), AncestralScheduler(2, "midpoints"), prompts=prompts, **options)


def disturb(found):
    torch.manual_seed(7)
    with torch.no_grad():
        for p in (p for p in found.parameters() if p.requires_grad):
            p.add_(0.1 * torch.randn_like(p))


def states(found, places):
    """States at the teacher's levels of these indices: x, its level, its condition."""
    levels = found.teacher.levels
    level = noise_level(levels.alphas, levels.sigmas)[places].float()
    x = torch.randn(len(places), *found.teacher.shape, generator=Generator().manual_seed(0))
    return x, level, found.conditions(len(places), Generator().manual_seed(1))


OPTIONS = [
    ("ddpm", {}),
    ("ddpm", {"lora": Lora(rank=2, targets=["conv1"])}),
    ("ddpm", {"weights": "random"}),
    ("edm", {}),
    ("annealed", {}),
    ("classes", {}),
    ("ldm_vq", {}),
    ("sd", {"guidance": 3.0}),
    ("sd", {"guidance": 3.0, "lora": Lora(rank=2), "precision": "bfloat16"}),
    ("sd3", {}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_clean_data_are_the_teachers_and_a_fresh_networks(source, kind, options):
    """By the formulas of MATH 2, whatever the student has learned; a network of one's own is not guided."""
    found = sampler(source, kind, **options)
    assert isinstance(found, KnowsScore)
    disturb(found)
    plain = load_teacher(source(kind), precision=options.get("precision", "float32"))
    levels, places = plain.levels, torch.tensor([3, 11, 18])
    x, level, cond = states(found, places)
    a, s = (per_row(part[places].float(), x) for part in (levels.alphas, levels.sigmas))
    timesteps = levels.timesteps[places]
    timesteps = timesteps.float() if timesteps.is_floating_point() else timesteps

    def wanted(call):
        with torch.no_grad():
            output = call(plain.network, x, timesteps, cond)
        if levels.prediction_type == "edm":
            return 0.25 * a * x + 0.5 * s * output
        return x - s * output if levels.prediction_type == "flow_prediction" else (x - s * output) / a

    scale = options.get("guidance", 1.0)
    call = guided(plain.call, scale, plain.conditions.null()) if scale != 1 else plain.call
    close = {"rtol": 0, "atol": 1e-3}
    rough = {"rtol": 0, "atol": 0.05} if "precision" in options else close
    mine = found.denoised(x, level, cond)
    assert not mine.requires_grad
    torch.testing.assert_close(mine, wanted(call), **close)
    network = found.score_network()
    again = found.denoised(x, level, cond, network)
    torch.testing.assert_close(again, wanted(plain.call), **rough)
    again.square().mean().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in network.parameters())
    assert not any("lora" in name for name in network.state_dict())
    assert all(p.grad is None for p in found.parameters())


def test_a_score_network_learns_apart_from_student_and_teacher(source):
    found = sampler(source, "ddpm", lora=Lora(rank=2, targets=["conv1"]))
    x, level, cond = states(found, torch.tensor([300, 700]))
    before = found.denoised(x, level), found.network(x, 5).sample
    network = found.score_network()
    disturb(network)
    assert not torch.equal(found.denoised(x, level, None, network), before[0])
    assert torch.equal(found.denoised(x, level), before[0]) and torch.equal(found.network(x, 5).sample, before[1])


def test_between_levels_whole_timesteps_are_the_nearest_and_others_are_not_rounded(source):
    ddpm, edm = sampler(source, "ddpm"), sampler(source, "edm")
    for found in (ddpm, edm):
        levels = found.teacher.levels
        known = noise_level(levels.alphas, levels.sigmas)
        level = (known[500] + 0.3 * (known[501] - known[500])).float()[None]
        given = found.noise.timestep(level)
        if found is ddpm:
            assert given.tolist() == [500] and given.dtype == torch.long
        else:
            share = (given - levels.timesteps[500]) / (levels.timesteps[501] - levels.timesteps[500])
            assert given.dtype == torch.float32 and float(share) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("kind", ["ddpm", "edm", "annealed", "sd3"])
def test_what_is_cleaner_than_the_teachers_cleanest_level_comes_back(source, kind):
    found = sampler(source, kind)
    x, _, cond = states(found, torch.tensor([0, 0]))
    for level in (0.0, 0.3 * float(found.noise.known[1])):
        levels = torch.full((2,), level)
        alpha, _ = found.at_level(levels)
        torch.testing.assert_close(found.denoised(per_row(alpha, x) * x, levels, cond), x, rtol=0, atol=0.1)


def test_checkpointing_is_the_score_networks_too(source):
    assert sampler(source, "ddpm", checkpointing=True).score_network().is_gradient_checkpointing
    assert not sampler(source, "ddpm").score_network().is_gradient_checkpointing
