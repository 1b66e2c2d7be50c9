"""Paths of a teacher's own solver: against closed forms and diffusers' DPM-Solver++, and steps that land on them."""

from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from dxmi_plugins.samplers.diffusion.paths import BATCH, grid
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from tiny import folders, tiny
from torch import Generator

from dxmi.api import KnowsPaths

TEXT = ["sd", "sdxl", "sd3"]
FINE = {"annealed": {"num_train_timesteps": 400}, "dit": {"classes": 1000}}
MEAN, STD = 0.3, 0.2
"""of the Gaussian data whose paths are known"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folders(tmp_path_factory, FINE)


def sampler(source, kind, steps=3, nodes="midpoints", **options):
    prompts = ["a digit", "two"] if kind in TEXT else None
    return DiffusionSampler(source(kind), AncestralScheduler(steps, nodes), prompts=prompts, **options)


def drawn(found, n=3, steps=12, seed=0):
    return found.paths(n, steps, Generator().manual_seed(seed))


def knows_gaussians(found):
    """The sampler, with a teacher that predicts the mean of Gaussian data exactly, as its kind of network has it."""
    teacher = found.original()
    levels = teacher.levels

    def call(network, x, timestep, cond):
        place = (levels.timesteps.double() - timestep[0].double()).abs().argmin()
        a, s, d = levels.alphas[place], levels.sigmas[place], levels.sigma_data
        x0 = MEAN + a * STD**2 * (x - a * MEAN) / (a**2 * STD**2 + s**2)
        if levels.prediction_type == "edm":
            return (x0 - d**2 * a * x) / (d * s)
        return (x - (1 if levels.prediction_type == "flow_prediction" else a) * x0) / s

    found.untouched = replace(teacher, call=call, levels=levels._replace(bounded=False))
    return found.double()


def errors(found, steps):
    """Mean errors at nodes 1 to T: along a path, states keep their place in units of the law's std."""
    over = grid(found.teacher.levels, found.schedule, steps)
    xs, _ = drawn(found, 4, steps)
    alphas, sigmas = (torch.stack([part[0], *part[over.nodes]]) for part in (over.alphas, over.sigmas))
    stds = (alphas**2 * STD**2 + sigmas**2).sqrt()
    exploding = bool((found.teacher.levels.alphas == 1).all())
    start = xs[0] * (sigmas[0] / found.schedule.init_noise_sigma if exploding else 1)
    place = (start - alphas[0] * MEAN) / stds[0]
    wanted = alphas[1:, None] * MEAN + stds[1:, None] * place.flatten()
    return (xs[1:].flatten(1) - wanted).abs().mean(1)


@pytest.mark.parametrize("kind", ["ddpm", "edm", "annealed", "sd3"])
def test_paths_of_gaussian_data_are_exact_to_second_order(source, kind):
    found = knows_gaussians(sampler(source, kind))
    coarse, fine = errors(found, 40), errors(found, 80)
    assert (coarse[:2] < 3e-3).all() and (fine[:2] < coarse[:2] / 3).all(), (coarse, fine)
    assert fine[2] < 5e-3  # the last step is of first order


@pytest.mark.parametrize("nodes", ["midpoints", "trailing"])
def test_they_are_the_paths_of_diffusers_solver(source, nodes):
    """On latents, which nothing clamps."""
    found, teacher = sampler(source, "ldm_kl", nodes=nodes), load_teacher(source("ldm_kl"))
    over = grid(teacher.levels, found.schedule, 12)
    options = {"final_sigmas_type": "zero", "euler_at_final": True}
    theirs = DPMSolverMultistepScheduler.from_config(teacher.pipeline.scheduler.config, **options)
    theirs.set_timesteps(timesteps=over.timesteps.tolist())
    xs, _ = drawn(found)
    x, seen = xs[0], [xs[0]]
    for i, t in enumerate(over.timesteps.tolist(), 1):
        with torch.no_grad():
            x = theirs.step(teacher.call(teacher.network, x, torch.full((3,), t), None), t, x).prev_sample
        if i in over.nodes:
            seen.append(x)
    torch.testing.assert_close(xs, torch.stack(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ddpm", {}),
        ("ddpm", {"nodes": [600, 599, 3]}),
        ("edm", {"nodes": "karras"}),
        ("annealed", {}),
        ("annealed", {"nodes": "karras"}),
        ("classes", {"steps": 1}),
        ("dit", {"guidance": 3.0}),
        ("ldm_vq", {}),
        ("sd", {"guidance": 2.0, "lora": Lora(rank=2)}),
        ("sdxl", {"nodes": "trailing"}),
        ("sd3", {}),
    ],
)
def test_every_kind_of_teacher_has_paths(source, kind, options):
    found = sampler(source, kind, **options)
    assert isinstance(found, KnowsPaths)
    xs, cond = drawn(found)
    assert xs.shape == (found.steps + 1, 3, *found.teacher.shape) and xs.isfinite().all() and not xs.requires_grad
    conditional = found.teacher.conditions.text or found.classes is not None
    assert (cond is not None and len(cond) == 3) if conditional else cond is None
    again, _ = drawn(found)
    other, _ = drawn(found, seed=1)
    assert torch.equal(xs, again) and not torch.equal(xs, other)
    assert not found.teacher.levels.bounded or xs[-1].abs().max() <= 1
    generator = Generator().manual_seed(0)
    found.conditions(3, generator)
    assert torch.equal(xs[0], found.initial(xs[0].shape, generator))


def test_paths_are_the_teachers_whatever_the_student_has_learned(source):
    for lora in (None, Lora(rank=2, targets=["conv1"])):
        found = sampler(source, "ddpm", lora=lora)
        before, _ = drawn(found)
        with torch.no_grad():
            for p in (p for p in found.parameters() if p.requires_grad):
                p.add_(0.1 * torch.randn_like(p))
        assert torch.equal(drawn(found)[0], before)


def test_paths_are_drawn_in_parts(source, monkeypatch):
    found = sampler(source, "classes")
    whole, _ = drawn(found, 5)
    sizes, call = [], found.original().call
    monkeypatch.setattr("dxmi_plugins.samplers.diffusion.paths.BATCH", 2)
    found.untouched = replace(found.original(), call=lambda net, x, *rest: sizes.append(len(x)) or call(net, x, *rest))
    torch.testing.assert_close(drawn(found, 5)[0], whole, rtol=1e-5, atol=1e-5)
    assert set(sizes) == {1, 2} and BATCH == 512


@pytest.mark.parametrize("kind", ["ddpm", "annealed", "sd3"])
def test_the_grid_is_even_in_index_and_has_the_nodes(source, kind):
    found = sampler(source, kind)
    levels, (alphas, sigmas) = found.teacher.levels, found.schedule.level(torch.arange(3))
    for steps in (1, 9, 30):
        over = grid(levels, found.schedule, steps)
        assert abs(len(over.timesteps) - steps) <= 4 and over.sigmas[-1] == 0 and over.alphas[-1] == 1
        ratios = over.sigmas / over.alphas
        assert (ratios[1:] < ratios[:-1]).all() and ratios[0] == (levels.sigmas / levels.alphas)[-1]
        assert torch.equal(over.alphas[over.nodes[:2]], alphas[1:]) and over.nodes[2] == len(over.timesteps)
        assert torch.equal(over.sigmas[over.nodes[:2]], sigmas[1:])
    places = [int((levels.timesteps - t).abs().argmin()) for t in over.timesteps]
    gaps = torch.tensor([*places, -1]).diff().neg()
    assert gaps.max() <= 1.5 * len(levels.sigmas) / 30 + 1


def test_epsilon_is_not_asked_where_it_tells_nothing(tmp_path):
    """The last of squared-cosine levels have next to no signal; a prediction of v starts there all the same."""
    for kind, first in (("epsilon", 990), ("v_prediction", 999)):
        folder = tiny("ddpm", tmp_path / kind, beta_schedule="squaredcos_cap_v2", prediction_type=kind)
        found = DiffusionSampler(str(folder), AncestralScheduler(2, "midpoints"))
        assert abs(int(grid(found.teacher.levels, found.schedule, 8).timesteps[0]) - first) <= 6 * (kind == "epsilon")


@pytest.mark.parametrize("kind", ["ddpm", "edm", "annealed", "sd3"])
def test_steps_without_noise_land_on_the_path_where_there_is_no_loss(source, kind):
    """At eta 0, with a network that says what lands there: the scheduler's own means are the path's next states."""
    found = DiffusionSampler(
        source(kind),
        AncestralScheduler(3, "midpoints", eta=0.0, clip_sample=False),
        prompts=["a digit"] if kind == "sd3" else None,
    )
    xs, cond = drawn(found)
    for k in range(3):
        t = torch.full((3,), k)
        zero, slope = (found.schedule.transition(torch.full_like(xs[k], out), xs[k], t)[0] for out in (0.0, 1.0))
        wanted = (xs[k + 1] - zero) / (slope - zero)
        found.teacher = replace(found.teacher, call=lambda *given, wanted=wanted: wanted)
        assert found.path_loss(xs[k], t, xs[k + 1], cond) < 1e-5
        found.teacher = replace(found.teacher, call=lambda *given, wanted=wanted: wanted + 0.1)
        moved = found.path_loss(xs[k], t, xs[k + 1], cond).item()
        alpha, sigma = found.schedule.level(t[:1])
        by = {"ddpm": sigma / alpha, "annealed": sigma, "edm": 0.5 * sigma, "sd3": sigma}[kind]
        assert moved == pytest.approx(0.1 * float(by) / max(1, float(by)), rel=1e-3)


@pytest.mark.parametrize("lora", [None, Lora(rank=2, targets=["conv1"])])
def test_the_loss_reaches_the_network_alone_and_learning_lessens_it(source, lora):
    found = sampler(source, "classes", lora=lora)
    xs, cond = drawn(found, 16)
    t = torch.arange(16) % 3
    x, x_next = (xs[t + k, torch.arange(16)] for k in (0, 1))
    loss = found.path_loss(x, t, x_next, cond)
    loss.backward()
    learns = {name for name, p in found.named_parameters() if p.grad is not None and p.grad.any()}
    assert learns and "log_std" not in learns and all(name.startswith("network.") for name in learns)
    assert lora is None or all(".lora_" in name for name in learns)
    optimizer = torch.optim.Adam([p for p in found.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(15):
        optimizer.zero_grad()
        found.path_loss(x, t, x_next, cond).backward()
        optimizer.step()
    assert found.path_loss(x, t, x_next, cond) < 0.9 * loss
