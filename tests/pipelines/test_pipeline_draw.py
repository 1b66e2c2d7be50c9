"""Pipelines as draws: whatever solvers ran before, and whose fault an error is."""

import shutil
from functools import wraps
from types import SimpleNamespace

import diffusers
import pytest
import torch
from accelerate import Accelerator
from diffusers import DanceDiffusionPipeline, DDIMPipeline, DDIMScheduler, DDPMPipeline, IPNDMScheduler, UNet1DModel
from diffusers.utils import dummy_torch_and_torchsde_objects as without_torchsde
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from tiny import KINDS, ddpm, ddpm_variance, sd, tiny, tokenizer
from torch import Generator
from transformers import CLIPImageProcessor, CLIPTokenizer

from dxmi.api import ConfigError
from dxmi.api.fingerprint import fingerprint, pipeline_fingerprint
from dxmi.api.noise import generators
from dxmi.cli.main import main
from dxmi.evaluation import KeptSamples
from dxmi.pipelines import PipelineDraw, load_pipeline
from dxmi.runs.sample import sample

CPU = torch.device("cpu")
SOLVERS = ("DDIMScheduler", "EulerAncestralDiscreteScheduler", "DDPMScheduler", None)


def drawn(pipeline, solvers):
    return {name: PipelineDraw(pipeline, CPU, scheduler=name)(3, 4, generators(0, range(3))) for name in solvers}


def test_solvers_do_not_depend_on_which_ran_before():
    """A learned variance, which some solvers use and some drop: equal to the bit, and DDPM's own as in its pipeline."""
    pipeline = ddpm_variance()
    forth, back = drawn(pipeline, SOLVERS), drawn(pipeline, SOLVERS[::-1])
    assert all(torch.equal(forth[name], back[name]) for name in SOLVERS)
    torch.testing.assert_close(forth["DDPMScheduler"], forth[None], rtol=0, atol=1e-6)
    assert (forth["DDIMScheduler"] - forth[None]).abs().max() > 0.01


def state(pipeline):
    bar = getattr(pipeline, "_progress_bar_config", {})
    return pipeline.scheduler, pipeline.scheduler.timesteps.tolist(), bar, dict(pipeline.config)


@pytest.mark.parametrize("kind", ["ddpm_variance", "ldm_kl", "classes"])
@pytest.mark.parametrize("scheduler", [None, "EulerDiscreteScheduler"])
def test_a_pipeline_is_as_it_was_afterwards(kind, scheduler):
    pipeline = KINDS[kind]()
    pipeline.set_progress_bar_config(desc="mine")
    pipeline.scheduler.set_timesteps(7)
    before = state(pipeline)
    draw = PipelineDraw(pipeline, CPU, scheduler=scheduler)
    draw(1, 2, generators(0, [0]))
    assert state(pipeline) == before and pipeline.scheduler is before[0]
    pipeline.unet.forward = bug
    with pytest.raises(RuntimeError):
        draw(1, 2, generators(0, [0]))
    assert state(pipeline) == before and pipeline.scheduler is before[0]


def bug(*given, **more):
    raise ValueError("a real bug")


@pytest.mark.parametrize("scheduler", [None, "DDIMScheduler"])
def test_an_error_of_the_network_is_not_blamed_on_the_steps(scheduler, tmp_path, monkeypatch, capsys):
    pipeline = ddpm()
    pipeline.unet.forward = bug
    with pytest.raises(RuntimeError, match="^DDPMPipeline: a real bug$") as found:
        PipelineDraw(pipeline, CPU, scheduler=scheduler)(1, 2, Generator())
    assert isinstance(found.value.__cause__, ValueError)
    monkeypatch.setattr("dxmi.runs.sample.load_pipeline", lambda source: pipeline)
    assert main(["sample", "mine", "-n", "1", "--steps", "2", "--out", str(tmp_path / "grid.png")]) == 1
    assert capsys.readouterr().err.startswith("dxmi: failed: DDPMPipeline: a real bug") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scheduler", "steps", "says"),
    [
        (None, 2000, "2000 with DDPMScheduler: .*cannot be larger than"),
        ("DDIMScheduler", 2000, "2000 with DDIMScheduler: .*cannot be larger than"),
        ("DPMSolverMultistepScheduler", 0, "0 is not positive$"),  # it would leave the noise as it is
    ],
)
def test_steps_that_a_scheduler_cannot_make(scheduler, steps, says):
    with pytest.raises(ConfigError, match=f"^steps: {says}"):
        PipelineDraw(ddpm(), CPU, scheduler=scheduler)(1, steps, Generator())


def test_a_student_has_the_steps_that_it_learned(tmp_path):
    folder = tmp_path / "student"
    DiffusionSampler(str(tiny("ddpm", tmp_path / "teacher")), AncestralScheduler(3)).save_pretrained(folder)
    for steps in (2, 8):
        with pytest.raises(ConfigError, match="^steps: this student was trained for 3, and has no others; leave it"):
            sample(folder, 2, seed=0, steps=steps)
    assert torch.equal(sample(folder, 2, seed=0, steps=3), sample(folder, 2, seed=0))


def test_the_steps_of_schedulers_outside_diffusers_are_their_business_too():
    class Even(DDIMScheduler):
        def set_timesteps(self, steps, device=None):
            if steps % 2:
                raise ValueError("give an even number")
            super().set_timesteps(steps, device)

    pipeline = ddpm()
    pipeline.scheduler = Even.from_config(pipeline.scheduler.config)
    with pytest.raises(ConfigError, match="^steps: 3 with Even: give an even number$"):
        PipelineDraw(pipeline, CPU)(1, 3, Generator())


def test_a_scheduler_that_its_pipeline_calls_wrongly_is_not_blamed_on_the_steps():
    draw = PipelineDraw(sd(), CPU, ["a"], scheduler="CogVideoXDPMScheduler")
    with pytest.raises(RuntimeError, match=r"^StableDiffusionPipeline: CogVideoXDPMScheduler.step\(\) missing 2 "):
        draw(1, 3, generators(0, [0]))


class Silent(DDPMPipeline):
    """What it draws is no images."""

    @wraps(DDPMPipeline.__call__)
    def __call__(self, *given, **more):
        return SimpleNamespace(audios=super().__call__(*given, **more).images)


def audio():
    network = UNet1DModel(block_out_channels=(8, 8, 16), sample_size=256, layers_per_block=1, extra_in_channels=16)
    return DanceDiffusionPipeline(unet=network, scheduler=IPNDMScheduler())


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        (lambda: SimpleNamespace(components={}), "SimpleNamespace: has no unet and no transformer; take"),
        (audio, "DanceDiffusionPipeline: draws no images in steps; take"),
        (lambda: Silent(unet=ddpm().unet, scheduler=ddpm().scheduler), "Silent: draws no images in steps; take"),
    ],
)
def test_pipelines_that_draw_no_images(pipeline, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        PipelineDraw(pipeline(), CPU).trial(2)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("DPMSolverSDEScheduler", {}, "requires the torchsde library .*pip install torchsde"),
        ("DPMSolverMultistepScheduler", {"beta_schedule": "sigmoid"}, "sigmoid is not implemented"),
    ],
)
def test_schedulers_that_cannot_be_made(name, options, says, monkeypatch):
    """The first one is as diffusers has it where torchsde is missing."""
    monkeypatch.setattr(diffusers, "DPMSolverSDEScheduler", without_torchsde.DPMSolverSDEScheduler)
    with pytest.raises(ConfigError, match=f"^schedulers: {name} cannot be made: .*{says}"):
        PipelineDraw(ddpm(**options), CPU, scheduler=name)


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "steps", "nfe"),
    [(ddpm, "HeunDiscreteScheduler", 3, 5), (sd, None, 3, 6), (lambda: ddpm(channels=3), "DDIMScheduler", 3, 3)],
)
def test_a_trial_tells_calls_and_shape(pipeline, scheduler, steps, nfe):
    """Heun calls twice a step but the last; a guided image has a copy beside it."""
    made = pipeline()
    prompts = ["a"] if hasattr(made, "text_encoder") else []
    found = PipelineDraw(made, CPU, prompts, scheduler).trial(steps)
    assert found == (nfe, (3 if scheduler == "DDIMScheduler" else 1, 8, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_sample_shows_the_first_images_of_an_evaluation(kind, tmp_path, monkeypatch):
    """Two at a time; an evaluation keeps eight bits of them. To rounding of the network, half a level."""
    monkeypatch.setattr("dxmi.runs.sample.AT_ONCE", 2)
    folder = tiny(kind, tmp_path, **({"classes": 1000} if kind == "dit" else {}))
    prompts = ["a", "b"] if kind.startswith("sd") else []
    shown = sample(folder, 3, seed=7, steps=3, prompts=prompts)
    draw = PipelineDraw(load_pipeline(str(folder)), CPU, prompts)
    measured = KeptSamples(draw, 3, 7, Accelerator())(5)[:3]
    assert shown.shape == (3, 1, 8, 8) and (shown - measured).abs().max() < 0.51 * 2 / 255
    assert (shown[0] - shown[1]).abs().max() > 0.1
    with pytest.raises(ConfigError, match="^seed: -1 is not between"):
        sample(folder, 3, seed=-1, steps=3, prompts=prompts)


def changed(**parts):
    """The components of a pipeline, some others in place of theirs."""
    torch.manual_seed(0)
    return {**sd().components, **parts}


def with_word(word):
    vocabulary = tokenizer().get_vocab()
    number = vocabulary.pop("a")
    return CLIPTokenizer(vocab={**vocabulary, word: number}, merges=[], model_max_length=8)


def longer():
    found = tokenizer()
    found.model_max_length = 9
    return found


def padded():
    found = tokenizer()
    found.pad_token = "0"
    return found


def moved():
    found = tokenizer()
    found.name_or_path = "elsewhere"
    return found


def test_a_fingerprint_is_of_all_that_images_depend_on():
    first = fingerprint(changed())
    assert first == fingerprint(changed(tokenizer=with_word("a"))) == fingerprint(changed(tokenizer=moved()))
    others = [
        fingerprint(changed(tokenizer=with_word("other"))),
        fingerprint(changed(tokenizer=longer())),
        fingerprint(changed(tokenizer=padded())),
        fingerprint(changed(scheduler=DDIMScheduler(beta_end=0.5))),
        fingerprint(changed(feature_extractor=CLIPImageProcessor(size=9))),
        fingerprint(changed(), {"requires_safety_checker": True}),
        fingerprint(changed(), {"requires_safety_checker": False}),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_a_fingerprint_is_the_same_wherever_a_pipeline_lies(tmp_path):
    tiny("sd", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (load_pipeline(str(tmp_path / name)) for name in ("one", "two"))
    assert one.config["_name_or_path"] != two.config["_name_or_path"]
    one.tokenizer(["a cat"], padding="max_length", max_length=5, truncation=True)  # it keeps how
    assert pipeline_fingerprint(one) == pipeline_fingerprint(two)
    two.register_to_config(requires_safety_checker=True)
    assert pipeline_fingerprint(one) != pipeline_fingerprint(two)


def test_a_fingerprint_is_of_the_pipeline_s_loop_too():
    one, two = (kind(ddpm().unet, DDIMScheduler()) for kind in (DDPMPipeline, DDIMPipeline))
    two.unet = one.unet
    assert fingerprint(one.components, one.config) == fingerprint(two.components, two.config)
    assert pipeline_fingerprint(one) != pipeline_fingerprint(two)


class Slow:
    """A tokenizer in Python, as transformers has them."""

    special_tokens_map, model_max_length = {"pad_token": "!"}, 8

    def __init__(self, *merges):
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(merges)}

    def get_vocab(self):
        return {"a": 0, "b": 1}


def test_a_fingerprint_is_of_the_merges_of_a_tokenizer():
    """One vocabulary, but "ab" is one word or two."""
    vocabulary = {**tokenizer().get_vocab(), "ab</w>": len(tokenizer())}
    fast = [CLIPTokenizer(vocab=vocabulary, merges=merges) for merges in ([], [("a", "b</w>")])]
    assert fast[0].get_vocab() == fast[1].get_vocab() and fast[0]("ab").input_ids != fast[1]("ab").input_ids
    for pair in (fast, [Slow(("a", "b"), ("b", "a")), Slow(("b", "a"), ("a", "b"))]):
        assert len({fingerprint({"tokenizer": each}) for each in pair}) == 2


@pytest.mark.parametrize("kind", ["ddpm", "classes", "ldm_kl", "sd"])
@pytest.mark.parametrize("scheduler", [None, "EulerAncestralDiscreteScheduler"])
def test_images_of_pipelines_do_not_depend_on_batches(kind, scheduler, tmp_path):
    """Schedulers that draw noise, and pipelines that hand them no generator, too; to rounding of the network."""
    prompts = ["a", "b"] if kind == "sd" else []
    draw = PipelineDraw(load_pipeline(str(tiny(kind, tmp_path))), torch.device("cpu"), prompts, scheduler)
    whole = draw(5, 3, generators(0, range(5)))
    parts = torch.cat([draw(len(rows), 3, generators(0, rows)) for rows in (range(2), range(2, 5))])
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)
    assert whole.shape == (5, 1, 8, 8)
