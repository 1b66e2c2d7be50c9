"""Students that learn from their teacher: imitation, guidance folded into the weights, random weights."""

import json

import pytest
import torch
from conftest import DIGITS, EXTRACTOR
from diffusers import DDIMScheduler
from dxmi_plugins.energies.conv import ConvEnergy
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from tiny import draw, folders
from torch import Generator

from dxmi.api import ConfigError
from dxmi.cli.main import main
from dxmi.config import GameConfig, LearningConfig, RatesConfig
from dxmi.game.algorithm import build_game

TEXT = ["sd", "sdxl", "sd3"]
GUIDED = [*TEXT, "dit"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folders(tmp_path_factory, {"dit": {"classes": 1000}})  # its pipeline guides with the label 1000


def sampler(source, kind, steps=2, **options):
    prompts = ["a digit"] if kind in TEXT else None
    return DiffusionSampler(source(kind), AncestralScheduler(steps), prompts=prompts, **options)


def states(found, n=4):
    x = torch.randn(n, *found.teacher.shape, generator=Generator().manual_seed(0))
    return x, torch.arange(n) % found.steps, found.conditions(n, Generator().manual_seed(1))


def disturb(found, scale=0.05):
    torch.manual_seed(7)
    with torch.no_grad():
        for p in (p for p in found.network.parameters() if p.requires_grad):
            p.add_(scale * torch.randn_like(p))


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
@pytest.mark.parametrize("kind", ["ddpm", "edm", "annealed", "classes", "dit", "ldm_vq", "sd", "sdxl", "sd3"])
def test_an_untouched_student_is_its_unguided_teacher_at_every_node(source, kind, lora):
    if lora is not None and kind not in GUIDED:
        lora = Lora(rank=2, targets=["conv1"])
    found = sampler(source, kind, steps=4, lora=lora)
    x, t, cond = states(found)
    for k in range(4):
        assert found.imitation(x, torch.full_like(t, k), cond).item() == 0
    disturb(found)
    assert found.imitation(x, t, cond).item() > 1e-6


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_the_distance_is_that_of_diffusers_clean_images(source, lora):
    """By hand: guidance as Stable Diffusion's pipeline has it, clean images as its scheduler has them."""
    scale, plain = 3.0, load_teacher(source("sd"))
    found = sampler(source, "sd", lora=lora, guidance=scale)
    disturb(found)
    x, t, cond = states(found)
    texts = plain.pipeline.encode_prompt("a digit", torch.device("cpu"), 1, True)
    ddim = DDIMScheduler.from_config(plain.pipeline.scheduler.config)
    ddim.set_timesteps(1000)
    expected = []
    for k in range(len(x)):
        node = int(found.timesteps[t[k]])
        with torch.no_grad():
            text, null = (plain.network(x[k : k + 1], node, encoder_hidden_states=e).sample for e in texts)
            own = found.network(x[k : k + 1], node, encoder_hidden_states=cond[k : k + 1]).sample
        wanted, mine = (
            ddim.step(out, node, x[k : k + 1]).pred_original_sample for out in (null + scale * (text - null), own)
        )
        abar = ddim.alphas_cumprod[node]
        expected.append((abar / (1 - abar)).clamp_min(1) * (mine - wanted).square().mean())
    torch.testing.assert_close(found.imitation(x, t, cond), torch.stack(expected).mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", GUIDED)
def test_guided_rivals_draw_what_the_pipeline_draws_at_that_scale(source, kind):
    found, pipeline = sampler(source, kind, guidance=3.0), load_teacher(source(kind)).pipeline
    labels = torch.tensor([3, 7])
    if kind == "dit":
        found.conditions = lambda n, generator=None: labels
    name = "teacher-euler" if kind == "sd3" else "teacher-ddim"
    ours = (found.rivals()[name](2, 3, Generator().manual_seed(4)) / 2 + 0.5).clamp(0, 1)
    sizes = {} if kind == "dit" else {"height": 8, "width": 8}
    theirs = draw(pipeline, steps=3, seed=4, guidance=3.0, labels=labels.tolist(), **sizes)
    torch.testing.assert_close(ours.to(theirs), theirs, rtol=0, atol=1e-4)
    without = (sampler(source, kind).rivals()[name](2, 3, Generator().manual_seed(4)) / 2 + 0.5).clamp(0, 1)
    assert kind == "dit" or (ours - without).abs().max() > 1e-3
    assert found.rival_calls == 2 and sampler(source, kind).rival_calls == 1


def game(found, **options):
    torch.manual_seed(0)
    energy = ConvEnergy(width=4, blocks=2)
    energy(torch.zeros(1, *found.teacher.shape))
    learning = LearningConfig(lr=RatesConfig(sampler=2e-3), betas=(0.9, 0.99), ema=0.5)
    options = {"warmup": 100, "imitate": 1.0, "sweep": True, **options}
    return build_game(energy, found, game=GameConfig(**options), learning=learning)


@pytest.mark.parametrize("lora", [None, Lora(rank=8, alpha=32.0)])
def test_warm_up_folds_the_guidance_into_the_student(source, lora):
    found = sampler(source, "sd", lora=lora, guidance=4.0)
    played, (x, t, cond) = game(found), states(found, 16)
    before, stds = found.imitation(x, t, cond).item(), found.stds.detach().clone()
    logs = [played.round(x, tuple(x.shape), cond) for _ in range(25)]
    after, average = found.imitation(x, t, cond).item(), played.players.ema.module.imitation(x, t, cond).item()
    assert after < before / 2 and average < before / 2, (before, after, average)
    assert all("policy_loss" not in log and log["imitation"].isfinite() for log in logs)
    assert torch.equal(found.stds, stds)  # only the means imitate
    wanted = found.original().call(found.original().network, x, found.timesteps[t], cond)
    plain = load_teacher(source("sd"))
    guided = plain.call(plain.network, x, plain.levels.timesteps[found.timesteps[t]], cond)
    empty = found.null.expand_as(cond)
    guided = guided + 3.0 * (guided - plain.call(plain.network, x, found.timesteps[t], empty))
    torch.testing.assert_close(wanted, guided, rtol=1e-5, atol=1e-5)  # the teacher itself has not moved


def test_after_the_warm_up_imitation_is_a_part_of_the_loss(source):
    found = sampler(source, "sd", guidance=2.0)
    played, (x, _, cond) = game(found, warmup=1), states(found, 8)
    stds = found.stds.detach().clone()
    first, second = (played.round(x, tuple(x.shape), cond) for _ in range(2))
    assert "policy_loss" not in first and {"policy_loss", "imitation"} <= second.keys()
    assert not torch.equal(found.stds, stds)


def test_the_teacher_of_a_student_that_learns_whole_is_loaded_again_but_for_what_is_frozen(source):
    found = sampler(source, "sd", guidance=2.0)
    original = found.original()
    assert original.network is not found.network and original is found.original()
    assert not any(p.requires_grad for p in original.network.parameters())
    for name in ("vae", "text_encoder", "tokenizer"):
        assert getattr(original.pipeline, name) is getattr(found.teacher.pipeline, name)
    small = sampler(source, "sd", lora=Lora(), guidance=2.0)
    assert small.original().network is small.network


def test_random_weights_are_fresh_and_can_learn_from_the_teacher(source):
    torch.manual_seed(3)
    found, plain = sampler(source, "sd", weights="random"), load_teacher(source("sd")).network
    assert {k: v for k, v in found.network.config.items() if k[0] != "_"} == {
        k: v for k, v in plain.config.items() if k[0] != "_"
    }
    differs = [not torch.equal(a, b) for a, b in zip(found.network.parameters(), plain.parameters(), strict=True)]
    assert sum(differs) > len(differs) / 3  # norms and biases start the same
    assert all(p.requires_grad for p in found.network.parameters())
    assert found.original().network is found.teacher.network
    played, (x, t, cond) = game(found), states(found, 16)
    before = found.imitation(x, t, cond).item()
    for _ in range(10):
        played.round(x, tuple(x.shape), cond)
    assert found.imitation(x, t, cond).item() < 0.7 * before
    for a, b in zip(found.teacher.network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("ddpm", "guidance: the teacher is unconditional; leave it at 1"),
        ("classes", "guidance: the teacher's network has no class that means none; leave it at 1"),
    ],
)
def test_teachers_that_cannot_be_guided_say_so(source, kind, says):
    with pytest.raises(ConfigError, match=says):
        sampler(source, kind, guidance=2.0)


def text_config(source, **game):
    return {
        "steps": 2,
        "data": {"path": str(DIGITS), "batch_size": 4, "label": "label"},
        "energy": {"name": "conv", "width": 4, "blocks": 2},
        "sampler": {
            "name": "diffusion",
            "teacher": source("dit"),
            "guidance": 2.0,
            "scheduler": {"name": "ancestral", "steps": 2},
        },
        "game": game,
        "tracker": None,
        "compare_steps": [],
    }


@pytest.mark.parametrize(
    ("sampler", "game", "says"),
    [
        ({}, {}, "game.imitate: the student has to learn its teacher's guidance; set it, to 1 for one"),
        ({}, {"imitate": -1.0}, "game.imitate: -1.0 is negative"),
        (
            {"name": "policy", "shape": [1, 8, 8], "steps": 2},
            {"imitate": 1.0},
            "game.imitate: GaussianPolicy has no te",
        ),
        ({"name": "langevin", "steps": 2, "step_size": 0.1}, {"imitate": 1.0}, "game.imitate: a chain that cannot"),
    ],
)
def test_settings_without_a_teacher_to_imitate_are_one_line(source, write, tmp_path, capsys, sampler, game, says):
    config = text_config(source, **game)
    config["sampler"] = sampler or config["sampler"]
    if sampler:
        del config["data"]["label"]
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_guided_rivals_tell_two_calls_a_step(source, tmp_path, write, monkeypatch):
    config = text_config(source, imitate=1.0, warmup=1)
    monkeypatch.setattr(DiffusionSampler, "rivals", lambda self: {"rival": lambda n, s, g: torch.zeros(n, 1, 8, 8)})
    config["evaluators"] = [{"name": "fidelity", "extractor": str(EXTRACTOR), "metrics": ["prc"], "samples": 40}]
    config["compare_steps"] = [5]
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run")]) == 0
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())["rows"]
    assert [(row["name"], row["steps"], row["nfe"]) for row in rows[:3]] == [
        ("student", 2, 2),
        ("rival", 2, 4),
        ("rival", 5, 10),
    ]
