"""Teachers of every kind against diffusers: clean images, deterministic and ancestral steps, what networks are told."""

import json
import math
import shutil

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers import few_step
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.conditions import Text
from dxmi_plugins.teachers.teacher import load_teacher
from tiny import KINDS, draw, text_unet, tiny

from dxmi.api import ConfigError, Levels
from dxmi.api.fingerprint import fingerprint
from dxmi.api.noise import generators
from dxmi.runs.sample import sample

VP = [
    ("ddpm", {}),
    ("ddpm", {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}),
    ("ddpm", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("ddpm", {"scheduler": "PNDMScheduler", "beta_schedule": "scaled_linear"}),
    ("ddpm", {"scheduler": "DPMSolverMultistepScheduler"}),
    ("ddpm", {"scheduler": "EulerDiscreteScheduler"}),
    ("ddpm_variance", {}),
    ("classes", {"scheduler": "DDIMScheduler"}),
    ("dit", {}),
    ("ldm_kl", {}),
    ("ldm_vq", {}),
    ("sd", {}),
    ("sdxl", {}),
]
EDM = [
    ("edm", {}),
    ("edm", {"prediction_type": "v_prediction", "sigma_data": 1.0}),
    ("edm", {"scheduler": "EDMDPMSolverMultistepScheduler", "sigma_max": 50.0}),
]
FLOW = [("sd3", {}), ("sd3", {"shift": 1.0})]
VE = [("annealed", {"prediction_type": kind}) for kind in ("epsilon", "score", "sample")]
SUPPORTED = (
    "DiTPipeline, LDMPipeline, StableDiffusionPipeline, StableDiffusion3Pipeline, StableDiffusionXLPipeline, "
    "DDPMPipeline, DDIMPipeline, PNDMPipeline, ConsistencyModelPipeline"
)
CAPTIONS = {"sd", "sdxl", "sd3"}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Teachers by kind and options, in double precision, each loaded once."""
    loaded = {}

    def load(kind, options=None):
        key = f"{kind}-{json.dumps(options or {})}"
        if key not in loaded:
            folder = tiny(kind, tmp_path_factory.mktemp(kind), **(options or {}))
            loaded[key] = load_teacher(str(folder))
            loaded[key].network.double()
        return loaded[key]

    return load


def noise(teacher, seed, n=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, *teacher.shape), generator=generator, dtype=torch.float64)


def bind(teacher, steps=4, **options):
    return AncestralScheduler(steps, **{"clip_sample": False, **options}).bind(teacher.levels)


def condition(teacher, kind, n=2):
    about = ["a seven", "zero"] if kind in CAPTIONS else torch.arange(n)
    cond = teacher.conditions.encode(about, torch.device("cpu"))
    return cond.double() if kind in CAPTIONS else cond


def means(teacher, schedule, x, cond):
    """The chain of means from x."""
    with torch.no_grad():
        for k, t in enumerate(schedule.timesteps):
            output = teacher.call(teacher.network, x, t.expand(len(x)), cond)
            x, _ = schedule.transition(output, x, torch.tensor([k]))
    return x


def ddpm_like(scheduler_class, teacher, **options):
    config = dict(teacher.pipeline.scheduler.config)
    fixed = {"clip_sample": False, "thresholding": False, "timestep_spacing": "trailing", "set_alpha_to_one": True}
    if scheduler_class is DDPMScheduler:
        fixed["variance_type"] = "fixed_small"
    found = scheduler_class.from_config({**config, **fixed, **options})
    found.alphas_cumprod = found.alphas_cumprod.double()
    return found


# The clean image


@pytest.mark.parametrize(("kind", "options"), VP)
def test_x0hat_is_that_of_ddpm_from_first_to_last_level(load, kind, options):
    teacher = load(kind, options)
    x, output, theirs = noise(teacher, 0), noise(teacher, 1), ddpm_like(DDPMScheduler, teacher)
    levels, schedule = teacher.levels, bind(teacher)
    assert len(levels.alphas) == 1000
    for t in range(0, 1000, 37):
        ours = schedule.x0hat(output, x, levels.alphas[t], levels.sigmas[t])
        step = theirs.step(output, t, x, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours, step.pred_original_sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), EDM)
def test_x0hat_is_that_of_edm_at_every_level(load, kind, options):
    teacher = load(kind, options)
    theirs, levels, schedule = teacher.pipeline.scheduler, teacher.levels, bind(teacher)
    y, output = noise(teacher, 0), noise(teacher, 1)
    for alpha, sigma, t in zip(levels.alphas, levels.sigmas, levels.timesteps, strict=True):
        x, s = y / alpha, sigma / alpha  # y is what the network sees
        torch.testing.assert_close(theirs.precondition_inputs(x, s), y, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(theirs.precondition_noise(s), t, rtol=1e-6, atol=1e-6)
        ours = schedule.x0hat(output, y, alpha, sigma)
        torch.testing.assert_close(ours, theirs.precondition_outputs(x, output, s), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), FLOW)
def test_x0hat_is_where_the_velocity_leads_from_first_to_last_level(load, kind, options):
    teacher = load(kind, options)
    x, v, schedule = noise(teacher, 0), noise(teacher, 1), bind(teacher)
    shift = teacher.pipeline.scheduler.config.shift
    for i in range(0, 1000, 37):
        t, alpha, sigma = (part[i] for part in teacher.levels[:3])
        s = (i + 1) / 1000
        torch.testing.assert_close(sigma.item(), shift * s / (1 + (shift - 1) * s), rtol=1e-6, atol=0)
        torch.testing.assert_close(t, 1000 * sigma)
        torch.testing.assert_close(alpha, 1 - sigma)
        torch.testing.assert_close(schedule.x0hat(v, x, alpha, sigma), x - sigma * v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), VE)
def test_x0hat_of_a_score_network_is_tweedies_at_every_level(load, kind, options):
    teacher = load(kind, options)
    x, output, schedule = noise(teacher, 0), noise(teacher, 1), bind(teacher)
    for t, sigma in enumerate(teacher.pipeline.scheduler.sigmas):
        assert teacher.levels.timesteps[t] == t and teacher.levels.alphas[t] == 1 and teacher.levels.sigmas[t] == sigma
        expected = x + sigma**2 * teacher.pipeline.scheduler.score(output, x, float(sigma))
        ours = schedule.x0hat(output, x, torch.tensor(1.0), sigma)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


# Whole chains without noise


@pytest.mark.parametrize(("kind", "options"), VP)
def test_eta_zero_is_ddim(load, kind, options):
    teacher = load(kind, options)
    x, cond = noise(teacher, 0), condition(teacher, kind)
    theirs = ddpm_like(DDIMScheduler, teacher)
    theirs.set_timesteps(4)
    found = means(teacher, bind(teacher, eta=0.0), x, cond)
    with torch.no_grad():
        for t in theirs.timesteps:
            x = theirs.step(teacher.call(teacher.network, x, t.expand(2), cond), t, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rho", [7.0, 4.0])
@pytest.mark.parametrize(("kind", "options"), EDM)
def test_eta_zero_is_euler_on_karras_nodes(load, kind, options, rho):
    teacher = load(kind, options)
    y, schedule = noise(teacher, 0), bind(teacher, eta=0.0, nodes="karras", rho=rho)
    theirs = EDMEulerScheduler.from_config({**teacher.pipeline.scheduler.config, "rho": rho})
    theirs.set_timesteps(4)
    found, x = means(teacher, schedule, y, None), y / schedule.rows[0, 1]
    torch.testing.assert_close(schedule.timesteps, theirs.timesteps)
    with torch.no_grad():
        for t in theirs.timesteps:
            output = teacher.call(teacher.network, theirs.scale_model_input(x, t), t.expand(2), None)
            x = theirs.step(output, t, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nodes", ["trailing", "quadratic", [950, 600, 300, 20]])
@pytest.mark.parametrize(("kind", "options"), FLOW)
def test_eta_zero_is_flow_matching_euler(load, kind, options, nodes):
    teacher = load(kind, options)
    x, cond, schedule = noise(teacher, 0), condition(teacher, kind), bind(teacher, eta=0.0, nodes=nodes)
    theirs = FlowMatchEulerDiscreteScheduler()  # the nodes have the shift already
    theirs.set_timesteps(sigmas=schedule.rows[:, 2].tolist())
    found = means(teacher, schedule, x, cond)
    with torch.no_grad():
        for t in theirs.timesteps:
            x = theirs.step(teacher.call(teacher.network, x, t.expand(2), cond), t, x).prev_sample
    torch.testing.assert_close(found, x.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nodes", ["trailing", "karras"])
def test_eta_zero_is_euler_for_a_score_network(load, nodes):
    teacher = load("annealed", {"prediction_type": "epsilon"})
    schedule = bind(teacher, eta=0.0, nodes=nodes)
    x = schedule.init_noise_sigma * noise(teacher, 0)
    theirs = EulerDiscreteScheduler()
    theirs.set_timesteps(4)
    theirs.sigmas = torch.cat([schedule.rows[:, 2], torch.zeros(1)])
    assert schedule.init_noise_sigma == 5.0
    found = means(teacher, schedule, x, None)
    with torch.no_grad():
        for t, ours in zip(theirs.timesteps, schedule.timesteps, strict=True):
            theirs.scale_model_input(x, t)  # it only wants to be asked
            x = theirs.step(teacher.call(teacher.network, x, ours.expand(2), None), t, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


# Ancestral steps


@pytest.mark.parametrize(("kind", "options"), VP)
def test_eta_one_has_the_means_and_stds_of_ddpm(load, kind, options):
    teacher = load(kind, options)
    x, output, schedule = noise(teacher, 0), noise(teacher, 1), bind(teacher)
    theirs = ddpm_like(DDPMScheduler, teacher)
    theirs.set_timesteps(4)
    assert theirs.timesteps.tolist() == schedule.timesteps.tolist()
    for k, t in enumerate(theirs.timesteps[:-1]):
        mean, std = schedule.transition(output, x, torch.tensor([k]))
        for seed in (2, 3):  # two draws agree where mean and std do
            step = theirs.step(output, t, x, generator=torch.Generator().manual_seed(seed)).prev_sample
            torch.testing.assert_close(mean + std * noise(teacher, seed), step, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "nodes"),
    [(*each, "karras") for each in EDM + VE[:1]] + [(*each, [950, 600, 300, 20]) for each in FLOW],
)
def test_eta_one_has_the_means_and_stds_of_euler_ancestral(load, kind, options, nodes):
    """In the coordinates x/alpha, where every process is variance-exploding with sigma/alpha."""
    teacher = load(kind, options)
    y, output, schedule = noise(teacher, 0), noise(teacher, 1), bind(teacher, nodes=nodes)
    theirs = EulerAncestralDiscreteScheduler()
    theirs.set_timesteps(4)
    theirs.sigmas = torch.cat([schedule.rows[:, 2] / schedule.rows[:, 1], torch.zeros(1)])
    for k, (_, a_t, s_t, a_s, _, std) in enumerate(schedule.rows):
        x, x0 = y / a_t, schedule.x0hat(output, y, a_t, s_t)
        mean, _ = schedule.transition(output, y, torch.tensor([k]))
        for seed in (2, 3):
            theirs._step_index = k
            theirs.is_scale_input_called = True
            eps, generator = (x - x0) / (s_t / a_t), torch.Generator().manual_seed(seed)
            step = theirs.step(eps, theirs.timesteps[k], x, generator=generator).prev_sample
            own = std if k < 3 else 0.0  # theirs ends without noise
            expected = (mean + own * noise(teacher, seed)) / a_s
            torch.testing.assert_close(expected, step, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["edm", "annealed"])
def test_the_extra_node_ends_at_the_least_noise_with_its_ancestral_std(load, kind):
    teacher = load(kind)
    levels = teacher.levels
    s = levels.sigmas / levels.alphas
    ramp = torch.linspace(0, 1, 5, dtype=torch.float64)
    nodes = (s[-1] ** 0.25 + ramp * (s[0] ** 0.25 - s[-1] ** 0.25)) ** 4
    rows = bind(teacher, nodes="karras", rho=4.0, extra_node=True).rows
    torch.testing.assert_close(rows[:, 2] / rows[:, 1], nodes[:-1])
    assert rows[-1, 3] == 1  # in units of the data
    torch.testing.assert_close(rows[-1, 4], s[0])
    torch.testing.assert_close(rows[-1, 5], s[0] * (1 - (s[0] / nodes[3]) ** 2).sqrt())
    without = bind(teacher, nodes="karras", rho=4.0).rows
    assert len(without) == len(rows) == 4 and without[-1, 3:].tolist() == [1, 0, 2e-3]


def test_karras_timesteps_between_levels_are_linear_in_log_sigma():
    sigmas = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)  # one a decade
    levels = Levels(torch.arange(3), torch.ones(3), sigmas, "epsilon")
    rows = AncestralScheduler(3, nodes="karras", rho=2.0).bind(levels).rows
    torch.testing.assert_close(rows[1, 2], ((10**0.5 + 0.1**0.5) / 2) ** torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(rows[:, 0], 1 + rows[:, 2].log10())


# What the network is told


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_called_as_the_pipeline_calls_it(kind, tmp_path):
    teacher = load_teacher(str(tiny(kind, tmp_path)))
    about = ["a seven"] * 2 if kind in CAPTIONS else torch.tensor([4, 7])
    calls = []

    def keep(network, args, kwargs, output):
        calls.append((args, kwargs, output[0] if isinstance(output, tuple) else output.sample))

    hook = teacher.network.register_forward_hook(keep, with_kwargs=True)
    draw(teacher.pipeline, prompt="a seven", labels=[4, 7])
    hook.remove()
    cond = teacher.conditions.encode(about, torch.device("cpu"))
    for args, kwargs, output in calls:
        x = args[0] if args else kwargs["hidden_states"]
        t = args[1] if len(args) > 1 else kwargs["timestep"]
        with torch.no_grad():
            ours = teacher.call(teacher.network, x, t.expand(2), cond)
        assert ours.shape == x.shape
        torch.testing.assert_close(ours, output[:, : x.shape[1]], rtol=1e-5, atol=1e-5)
    assert len(calls) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_sampler_plays_in_the_teachers_space(kind, tmp_path):
    teacher, captions = str(tiny(kind, tmp_path)), kind in CAPTIONS
    sampler = DiffusionSampler(teacher, AncestralScheduler(3), prompts=["one", "two"] if captions else None)
    sampler.check((1, 8, 8))
    images = noise(sampler.teacher, 0)[:, :1].float()
    images = torch.nn.functional.interpolate(images, size=(8, 8)).clamp(-1, 1)
    x, cond = sampler.encode(images, ["one", "two"] if captions else torch.tensor([1, 2]))
    assert x.shape[1:] == sampler.state_shape((1, 8, 8)) and (cond is None or len(cond) == 2)
    with torch.no_grad():
        law = sampler(x, torch.tensor([0, 2]), None, cond)
    assert law.mean.shape == x.shape and sampler.decode(x).shape == images.shape
    bounded = x.shape == images.shape  # latents are not clipped
    assert sampler.schedule.config.clip_sample is bounded
    start = sampler.initial((500, *x.shape[1:]), torch.Generator().manual_seed(0)).std().item()
    assert start == pytest.approx(5.0 if kind == "annealed" else 1.0, rel=0.02)
    rivals = {name: rival(2, 3, torch.Generator().manual_seed(0)) for name, rival in sampler.rivals().items()}
    assert rivals and all(found.shape == images.shape and found.isfinite().all() for found in rivals.values())


def test_conditions_are_labels_at_random_or_the_prompts_in_turn(tmp_path):
    labels = DiffusionSampler(str(tiny("classes", tmp_path / "c")), AncestralScheduler(2))
    drawn = labels.conditions(4000, torch.Generator().manual_seed(0))
    shares = drawn.bincount(minlength=10) / 4000
    assert labels.classes == 10 and (shares - 0.1).abs().max() < 4 * math.sqrt(0.1 * 0.9 / 4000)  # four standard errors
    assert torch.equal(drawn, labels.conditions(4000, torch.Generator().manual_seed(0)))
    text = DiffusionSampler(str(tiny("sdxl", tmp_path / "t")), AncestralScheduler(2), prompts=["one", "two"])
    one, two, again = text.conditions(3)
    assert torch.equal(one, again) and not torch.allclose(one, two, atol=1e-3)


def test_prompts_go_on_from_batch_to_batch_and_only_those_needed_are_embedded(tmp_path, monkeypatch):
    prompts = ["one", "two", "three"]
    sampler = DiffusionSampler(str(tiny("sd", tmp_path / "t")), AncestralScheduler(2), prompts=prompts)
    first, second, third = sampler.conditions(3)
    embedded, encode = [], Text.encode

    def spy(self, about, device):
        embedded.append(about)
        return encode(self, about, device)

    monkeypatch.setattr(Text, "encode", spy)
    torch.testing.assert_close(sampler.conditions(1), first[None])
    found = sampler.conditions(3, generators(0, [4, 5, 7]))
    torch.testing.assert_close(found, torch.stack([second, third, second]))
    assert embedded == [["one"], ["two", "three"]]
    seen = [sampler.rivals()["teacher-ddim"].conditions(2, generators(0, rows)) for rows in ([0, 1], [2, 3])]
    torch.testing.assert_close(torch.cat(seen), torch.stack([first, second, third, first]))


@pytest.mark.filterwarnings("ignore:teacher. the thresholding")
def test_rivals_threshold_nothing(tmp_path):
    """DPM-Solver++ would, with these options; the student's steps cannot."""
    drawn = []
    for options in ({}, {"thresholding": True, "sample_max_value": 0.5}):
        folder = tmp_path / str(len(options))
        sampler = DiffusionSampler(str(tiny("ddpm", folder, **options)), AncestralScheduler(2))
        drawn.append({name: rival(2, 4, torch.Generator().manual_seed(0)) for name, rival in sampler.rivals().items()})
    assert len(drawn[0]) == 3 and all(torch.equal(drawn[1][name], found) for name, found in drawn[0].items())


def test_fingerprints_follow_tokenizers_and_dtypes(tmp_path):
    """They are of what encodes, so that nothing changes with use or with the place, and the rest does."""
    sampler = DiffusionSampler(str(tiny("sd", tmp_path / "a")), AncestralScheduler(2))
    first = sampler.encoder_fingerprint()
    sampler.encode(torch.zeros(1, 1, 8, 8), ["a digit"])
    moved = DiffusionSampler(str(tiny("sd", tmp_path / "b")), AncestralScheduler(2))
    assert sampler.encoder_fingerprint() == first == moved.encoder_fingerprint()
    moved.teacher.pipeline.tokenizer.model_max_length = 7
    assert moved.encoder_fingerprint() != first
    vae = sampler.teacher.pipeline.vae.bfloat16()
    half = fingerprint({"vae": vae})
    assert fingerprint({"vae": vae.float()}) != half  # the same numbers


def test_fingerprints_follow_the_encoders_alone(tmp_path):
    def fingerprint(kind, folder, **options):
        source = str(tiny(kind, tmp_path / folder, **options))
        return DiffusionSampler(source, AncestralScheduler(2)).encoder_fingerprint()

    first, moved = fingerprint("ldm_kl", "a"), fingerprint("ldm_kl", "b")
    assert first == moved != fingerprint("ldm_kl", "c", scaling_factor=1.0)
    assert fingerprint("ddpm", "d") == "identity"


# Bad input


def refused(folder, match, sampler=False, **options):
    with pytest.raises(ConfigError, match=match) as caught:
        (DiffusionSampler(str(folder), AncestralScheduler(3), **options) if sampler else load_teacher(str(folder)))
    assert "\n" not in str(caught.value)


def edit(folder, **changes):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    return folder


def test_a_pipeline_of_another_kind_is_refused(tmp_path):
    folder = edit(tiny("sd", tmp_path), _class_name="StableDiffusionInpaintPipeline")
    refused(folder, f"^teacher: .* is a StableDiffusionInpaintPipeline; supported are {SUPPORTED}$")


def test_a_scheduler_of_another_kind_is_refused(tmp_path):
    pipeline = KINDS["classes"]()
    pipeline.scheduler = CMStochasticIterativeScheduler()
    pipeline.save_pretrained(tmp_path)
    refused(tmp_path, "^teacher: CMStochasticIterativeScheduler is not supported; supported are schedulers with")


def test_a_prediction_of_another_kind_is_refused(tmp_path):
    options = {"scheduler": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}
    folder = tiny("ddpm", tmp_path, **options, use_flow_sigmas=True)
    refused(folder, "^teacher: its DPMSolverMultistepScheduler predicts 'flow_prediction'; supported are epsilon")


def test_code_that_a_teacher_brings_runs_only_if_it_is_trusted(tmp_path):
    folder = edit(tiny("ddpm", tmp_path), scheduler=["few_step", "FewStepScheduler"])
    shutil.copy(few_step.__file__, folder / "scheduler")
    refused(folder, "^teacher: .* would run code of its own, scheduler/few_step.py; set trust_remote_code: true")
    trusted = edit(folder, scheduler=["mine", "Mine"])
    (trusted / "scheduler" / "mine.py").write_text("from diffusers import DDPMScheduler as Mine\n")
    assert load_teacher(str(trusted), trust_remote_code=True).levels.prediction_type == "epsilon"


def test_sampling_from_a_students_folder_runs_no_code_but_dxmis_own(tmp_path):
    folder = tmp_path / "student"
    DiffusionSampler(str(tiny("ddpm", tmp_path / "t")), AncestralScheduler(3)).save_pretrained(folder)
    assert sample(folder, 2, seed=0).shape == (2, 1, 8, 8)
    source = folder / "scheduler" / "few_step.py"
    source.write_text(source.read_text() + "\nraise SystemExit\n")
    with pytest.raises(ConfigError, match="custom code in few_step.py"):
        sample(folder, 2, seed=0)


def test_pickled_weights_are_refused(tmp_path):
    KINDS["ddpm"]().save_pretrained(tmp_path, safe_serialization=False)
    refused(tmp_path, r"^teacher: unet/diffusion_pytorch_model.bin is a pickle, .*python -c .*save_pretrained\('conv")
    DiffusionPipeline.from_pretrained(tmp_path, use_safetensors=False).save_pretrained(tmp_path / "converted")
    assert load_teacher(str(tmp_path / "converted")).levels.prediction_type == "epsilon"


def as_variant(folder):
    """The same weights under the names of the variant fp16 alone."""
    for file in list(folder.glob("*/*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    return folder


def test_weights_of_the_variant_fp16_are_read_where_there_are_no_others(tmp_path):
    wanted = load_teacher(str(tiny("sd", tmp_path / "a"))).network.state_dict()
    found = load_teacher(str(as_variant(tiny("sd", tmp_path / "b")))).network.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    shutil.copytree(tmp_path / "a" / "unet", tmp_path / "b" / "unet", dirs_exist_ok=True)  # both; the others fp16 alone
    load_teacher(str(tmp_path / "b"))


def test_the_hub_is_asked_for_the_variant_where_there_is_nothing_else(tmp_path, monkeypatch):
    folder, asked = as_variant(tiny("ddpm", tmp_path)), []

    def download(name, variant=None, **options):
        asked.append(variant)
        if variant is None:
            raise OSError("Could not find the necessary `safetensors` weights")
        return str(folder)

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    assert load_teacher("some/teacher").shape == (1, 8, 8) and asked == [None, "fp16"]


def test_inputs_that_nothing_fills_are_refused(tmp_path):
    pipeline = KINDS["sd"]()
    for n, options in enumerate(({"time_cond_proj_dim": 4}, {"num_class_embeds": 3})):
        pipeline.register_modules(unet=text_unet(8, 16, **options))
        pipeline.save_pretrained(tmp_path / str(n))
        refused(tmp_path / str(n), f"^teacher: its network has the input {next(iter(options))}, which is not supported")


def test_thresholding_is_ignored_with_a_notice(tmp_path):
    with pytest.warns(UserWarning, match="^teacher: the thresholding of .* is ignored"):
        load_teacher(str(tiny("ddpm", tmp_path, thresholding=True)))


def test_labels_and_captions_have_to_be_there_and_known(tmp_path):
    text = DiffusionSampler(str(tiny("sd", tmp_path / "t")), AncestralScheduler(2))
    labels = DiffusionSampler(str(tiny("dit", tmp_path / "l")), AncestralScheduler(2))
    images = torch.zeros(2, 1, 8, 8)
    for wrong, match in (
        (lambda: text.encode(images), "^data.caption: the teacher draws from text"),
        (lambda: labels.encode(images), "^data.label: the teacher draws 10 classes; name the column"),
        (lambda: labels.encode(images, torch.tensor([3, 10])), r"^data.label: 10 is none of .* classes, 0..9; "),
        (lambda: labels.encode(images, torch.tensor([-1, 3])), "^data.label: -1 is none"),
        (lambda: text.conditions(2), "^sampler.prompts: .*list some captions"),
        (lambda: text.check((1, 8, 8)), "^sampler.prompts: .*list some captions"),
        (lambda: labels.check((1, 4, 4)), r"^data: images are \(1, 4, 4\), the teacher draws \(1, 8, 8\)"),
    ):
        with pytest.raises(ConfigError, match=match):
            wrong()
    refused(tmp_path / "l", "^prompts: this teacher does not draw from text", sampler=True, prompts=["one"])


@pytest.mark.parametrize(
    ("kind", "options", "nodes", "match"),
    [
        ("ddpm", {}, "karras", "^nodes: karras is for EDM and variance-exploding teachers"),
        ("sd3", {}, "karras", "^nodes: karras is for EDM and variance-exploding teachers"),
        ("ddpm", {"rescale_betas_zero_snr": True}, "trailing", "^nodes: at timestep 999 this epsilon teacher"),
    ],
)
def test_nodes_that_do_not_fit_the_teacher_are_refused(load, kind, options, nodes, match):
    with pytest.raises(ConfigError, match=match):
        bind(load(kind, options), nodes=nodes)


def test_one_karras_node_is_refused(load):
    with pytest.raises(ConfigError, match="^steps: karras nodes go from the most noise to the least"):
        bind(load("edm"), steps=1, nodes="karras")
