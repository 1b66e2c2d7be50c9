"""Families of teachers: each is found by its entry point, one of a stranger's too."""

import importlib
import sys

import pytest
import torch
from diffusers import RePaintPipeline
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from tiny import KINDS, tiny

from dxmi.api import ConfigError, TeacherFamily
from dxmi.config import plugins
from dxmi.pipelines import families, family_of

FAMILY = {
    **dict.fromkeys(("ddpm", "ddpm_variance", "edm", "annealed", "classes"), "unet"),
    **dict.fromkeys(("ldm_kl", "ldm_vq"), "latent_diffusion"),
    **{"dit": "dit", "sd": "stable_diffusion", "sdxl": "stable_diffusion_xl", "sd3": "stable_diffusion_3"},
}

STRANGE = """
import diffusers
import torch
from dxmi.api import Levels
from dxmi_plugins.teachers.conditions import Unconditional
from dxmi_plugins.teachers.spaces import Pixels


class UpsideDown:
    pipelines = ("RePaintPipeline",)
    part = "unet"
    networks = "UNet2DModel upside down"

    def takes(self, pipeline):
        return isinstance(pipeline.unet, diffusers.UNet2DModel)

    def call(self, pipeline):
        return lambda network, x, timestep, cond: network(x, 999 - timestep).sample

    def levels(self, pipeline):
        abar = pipeline.scheduler.alphas_cumprod.double()
        return Levels(999 - torch.arange(1000), abar.sqrt(), (1 - abar).sqrt(), "epsilon")

    def space(self, pipeline):
        return Pixels()

    def conditions(self, pipeline):
        return Unconditional()

    def student(self, pipeline, network, scheduler):
        return diffusers.RePaintPipeline(unet=network, scheduler=scheduler)
"""
"""A family without a base class: its network counts timesteps from the noisiest level. No other takes its pipelines."""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with families on sys.path: entry points by name, and the text of its module."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(module, text, **points):
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[dxmi.teachers]", *lines, ""]))
        (tmp_path / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        plugins.forget()

    yield make
    plugins.forget()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def strange_teacher(folder):
    made = KINDS["ddpm"]()
    RePaintPipeline(unet=made.unet, scheduler=made.scheduler).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_pipeline_is_of_one_family(kind):
    pipeline, known = KINDS[kind](), families()
    assert all(isinstance(family, TeacherFamily) for family in known.values())
    assert [name for name, family in known.items() if family.takes(pipeline)] == [FAMILY[kind]]
    for named in (type(pipeline).__name__, None):  # None: a class of the pipeline's own tells nothing
        assert type(family_of("it", named, pipeline)) is type(known[FAMILY[kind]])


def test_the_family_of_a_stranger_teaches(install, tmp_path):
    install("strange_teachers", STRANGE, upside_down="UpsideDown")
    folder = strange_teacher(tmp_path / "teacher")
    teacher = load_teacher(str(folder))
    assert type(teacher.family).__name__ == "UpsideDown" and teacher.levels.timesteps[0] == 999
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([999, 600])
    with torch.no_grad():
        expected = teacher.network(x, 999 - t).sample
        assert torch.equal(teacher.call(teacher.network, x, t, None), expected)
    sampler = DiffusionSampler(str(folder), AncestralScheduler(2))
    sampler.save_pretrained(tmp_path / "student")
    assert '"RePaintPipeline"' in (tmp_path / "student" / "model_index.json").read_text()


def test_without_its_family_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="^teacher: .* is a RePaintPipeline; supported are DiTPipeline, "):
        load_teacher(str(strange_teacher(tmp_path / "teacher")))


def test_a_pipeline_that_two_families_take_is_refused(install, tmp_path):
    text = STRANGE.replace('("RePaintPipeline",)', '("DDPMPipeline",)')
    install("strange_teachers", text, upside_down="UpsideDown")
    with pytest.raises(ConfigError, match="^teacher: .* is taken by unet and by upside_down; uninstall one"):
        load_teacher(str(tiny("ddpm", tmp_path / "teacher")))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise ValueError('no luck')\n", "upside_down: .*fails to import: ValueError: no luck"),
        ("class UpsideDown:\n    pass\n", "upside_down: strange_teachers:UpsideDown lacks members of dxmi.api.Teach"),
        ("class UpsideDown:\n    def __init__(self, x): pass\n", ".*missing 1 required positional argument: 'x'"),
    ],
)
def test_a_family_that_cannot_be_used_hurts_nobody_else(text, says, install, tmp_path):
    install("strange_teachers", text, upside_down="UpsideDown")
    with pytest.warns(UserWarning, match=f"^teachers: {says}"):
        assert load_teacher(str(tiny("ddpm", tmp_path / "teacher"))).shape == (1, 8, 8)


def test_a_network_of_no_family_is_refused(tmp_path):
    pipeline = KINDS["ddpm"]()
    pipeline.unet.register_to_config(class_embed_type="timestep")
    pipeline.save_pretrained(tmp_path)
    known = r"DiTTransformer2DModel, UNet2DModel, UNet2DConditionModel \(text\), SD3Transformer2DModel, .*_time\)"
    with pytest.raises(ConfigError, match=f"^teacher: this UNet2DModel is not supported; supported are {known}$"):
        load_teacher(str(tmp_path))
