"""Adapters beside frozen networks: what learns, what is shared and saved, what diffusers makes of them."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from conftest import interrupted
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from dxmi_plugins.energies.conv import ConvEnergy
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora, merged, without_adapters
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from dxmi_plugins.teachers.teacher import load_teacher
from safetensors.torch import load_file
from tiny import draw, folders
from torch import Generator

from dxmi.api import ConfigError
from dxmi.chains import SamplerDraw
from dxmi.cli.main import main
from dxmi.config import Checked, GameConfig, LearningConfig, RatesConfig, TrainConfig
from dxmi.game.algorithm import build_game
from dxmi.training.train import train

TEXT = ["sd", "sdxl", "sd3"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folders(tmp_path_factory)


def sampler(source, kind, lora=None, **options):
    prompts = ["a digit"] if kind in TEXT else None
    return DiffusionSampler(source(kind), AncestralScheduler(2), lora=lora, prompts=prompts, **options)


def disturbed(found):
    """The same, as if it had learned."""
    torch.manual_seed(7)
    with torch.no_grad():
        for p in (p for p in found.parameters() if p.requires_grad):
            p.add_(0.1 * torch.randn_like(p))
    return found


def states(found, n=2):
    x = torch.randn(n, *found.teacher.shape, generator=Generator().manual_seed(0))
    return x, torch.arange(n) % 2, found.conditions(n, Generator().manual_seed(1))


def means(found):
    x, t, cond = states(found)
    with torch.no_grad():
        return found(x, t, None, cond).mean


@pytest.mark.parametrize("kind", [*TEXT, "dit"])
def test_adapters_are_all_that_learns_and_start_as_nothing(source, kind):
    whole, small = sampler(source, kind), sampler(source, kind, Lora(rank=4))
    assert torch.equal(means(small), means(whole))
    learns = {name: p for name, p in small.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name == "log_std" for name in learns)
    linear = [m for n, m in whole.network.named_modules() if n.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    linear += [m for n, m in whole.network.named_modules() if n.endswith(("_q_proj", "_k_proj", "_v_proj", "_add_out"))]
    linear = [m for m in linear if isinstance(m, torch.nn.Linear)]
    expected = sum(4 * (m.in_features + m.out_features) for m in linear)
    assert sum(p.numel() for name, p in learns.items() if "lora_" in name) == expected > 0


@pytest.mark.parametrize("kind", [*TEXT, "dit"])
def test_merged_weights_are_the_adapted_network_and_without_adapters_it_is_the_teacher(source, kind):
    found = disturbed(sampler(source, kind, Lora(rank=4, alpha=2.0)))
    before, state = means(found), torch.get_rng_state()
    plain = merged(found.network)
    assert torch.equal(state, torch.get_rng_state())
    untouched = load_teacher(source(kind)).network
    assert plain.state_dict().keys() == untouched.state_dict().keys()
    with without_adapters(found.network):
        torch.testing.assert_close(means(found), means(sampler(source, kind)), rtol=0, atol=0)
    assert torch.equal(means(found), before)
    found.network = plain
    torch.testing.assert_close(means(found), before, rtol=1e-4, atol=1e-5)
    assert (before - means(sampler(source, kind))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TEXT)
def test_the_adapters_alone_make_the_teachers_pipeline_the_student(source, kind, tmp_path):
    found = disturbed(sampler(source, kind, Lora(rank=4, alpha=2.0)))
    found.save_lora(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    teacher = load_teacher(source(kind))
    teacher.pipeline.load_lora_weights(tmp_path)
    x, t, cond = states(found)
    with torch.no_grad():
        theirs, own = (teacher.call(part, x, found.timesteps[t], cond) for part in (teacher.network, found.network))
    torch.testing.assert_close(theirs, own, rtol=0, atol=1e-5)
    if kind == "sd3":
        return  # its pipeline lets the steps draw from the global generator, and the start from the given one
    teacher.pipeline.scheduler = found.schedule.with_stds(found.stds.tolist())
    own = (SamplerDraw(found, (1, 8, 8))(2, 2, Generator().manual_seed(3)) / 2 + 0.5).clamp(0, 1)
    theirs = draw(teacher.pipeline, seed=3, height=8, width=8)
    torch.testing.assert_close(theirs, own.to(theirs), rtol=0, atol=1e-4)


def test_a_product_has_the_adapters_in_its_weights(source, tmp_path):
    found = disturbed(sampler(source, "sd", Lora(rank=4)))
    found.save_pretrained(tmp_path / "pipeline")
    again = sampler(source, "sd")
    again.load_pretrained(tmp_path / "pipeline")
    torch.testing.assert_close(means(again), means(found), rtol=1e-4, atol=1e-5)
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "pipeline", trust_remote_code=True)
    assert not any("lora" in name for name in loaded.unet.state_dict())


def game(found, warmup=0, **options):
    torch.manual_seed(0)
    energy = ConvEnergy(width=4, blocks=2)
    energy(torch.zeros(1, *found.teacher.shape))
    rates = RatesConfig(sampler=1e-2, energy=1e-3)
    return build_game(
        energy, found, game=GameConfig(warmup=warmup, tau1=0.01, **options), learning=LearningConfig(lr=rates, ema=0.5)
    )


def test_three_rounds_change_the_adapters_alone_and_the_average_shares_the_rest(source):
    found = sampler(source, "sd", Lora(rank=4))
    before = {name: p.detach().clone() for name, p in found.named_parameters()}
    played = game(found)
    x, _, cond = states(found, 8)
    for _ in range(3):
        log = played.round(x, tuple(x.shape), cond)
        assert all(value.isfinite() for value in log.values())
    changed = {name for name, p in found.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in found.named_parameters() if p.requires_grad}
    average = dict(played.players.ema.module.named_parameters())
    for name, p in found.named_parameters():
        assert (average[name].data_ptr() == p.data_ptr()) is not p.requires_grad, name
        assert torch.equal(average[name], p) is not p.requires_grad, name
    assert played.players.ema.module.teacher is found.teacher
    held = [p for group in played.players.optimizers["sampler"].param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in found.parameters() if p.requires_grad}


def test_states_hold_what_learns_and_load_into_a_fresh_student(source):
    found = disturbed(sampler(source, "sd", Lora(rank=4)))
    state = found.state_dict()
    assert not any("base_layer" in name for name in state)
    assert {name for name, p in found.named_parameters() if p.requires_grad} <= state.keys()
    fresh = sampler(source, "sd", Lora(rank=4))
    fresh.load_state_dict(state)
    assert torch.equal(means(fresh), means(found))
    twin = copy.deepcopy(found)
    assert twin.state_dict().keys() == state.keys() and torch.equal(means(twin), means(found))
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict({name: w for name, w in state.items() if name != "log_std"})


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_for_what_is_frozen(source, precision):
    half, whole = sampler(source, "sd", Lora(rank=4), precision=precision), sampler(source, "sd", Lora(rank=4))
    dtype = getattr(torch, precision)
    kinds = {p.dtype for p in half.parameters() if not p.requires_grad}
    assert kinds == {dtype} and {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    narrow = torch.float32 if precision == "float16" else dtype  # this autoencoder asks for more than float16
    assert half.teacher.space.vae.dtype == narrow and half.teacher.conditions.parts[0].dtype == dtype
    x, t, cond = states(half)
    law = half(x, t, None, cond)
    assert law.mean.dtype == cond.dtype == torch.float32
    assert (law.mean - means(whole)).abs().max() < 0.05 * means(whole).abs().max()
    law.mean.square().mean().backward()
    assert any(p.grad is not None and p.grad.any() for name, p in half.named_parameters() if "lora_B" in name)
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    latents = half.encode(images, ["a", "b"])[0]
    assert latents.dtype == half.decode(latents).dtype == torch.float32


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_product_of_half_precision_is_the_teachers_own_weights_and_the_adapters(source, precision, tmp_path):
    found = disturbed(sampler(source, "sd", Lora(rank=4), precision=precision))
    found.save_pretrained(tmp_path)
    wanted, folder = sampler(source, "sd", Lora(rank=4)), Path(source("sd"))
    wanted.load_state_dict(found.state_dict())
    for name, weight in merged(wanted.network).state_dict().items():
        torch.testing.assert_close(saved(tmp_path / "unet")[name], weight, rtol=1e-6, atol=1e-7)
    for part in ("vae", "text_encoder"):
        before, after = saved(folder / part), saved(tmp_path / part)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        assert all(weight.dtype in (torch.float32, torch.int64) for weight in after.values())


def saved(folder):
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_checkpointing_leaves_gradients_as_they_are(source, lora):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        found = disturbed(sampler(source, "sd", lora, checkpointing=checkpointing))
        calls = []
        found.network.up_blocks[0].resnets[0].register_forward_pre_hook(lambda *given, calls=calls: calls.append(1))
        x, t, cond = states(found)
        found(x, t, None, cond).mean.square().mean().backward()
        assert len(calls) == 1 + checkpointing  # computed again for the gradient
        gradients.append([p.grad for p in found.network.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.fixture
def attention_config(config, tmp_path):
    """A run with adapters on a UNet for pixels that has attention."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    DDPMPipeline(unet=network, scheduler=DDPMScheduler()).save_pretrained(tmp_path / "teacher")
    config["sampler"] |= {"teacher": str(tmp_path / "teacher"), "lora": {"rank": 2}}
    return config | {"game": {"warmup": 1, "imitate": 0.5}, "evaluators": []}


def test_a_killed_run_resumes_bit_for_bit_from_a_small_checkpoint(attention_config, tmp_path):
    whole = train(Checked(TrainConfig, attention_config), tmp_path / "whole").folder
    with pytest.raises(KeyboardInterrupt), interrupted(3):
        train(Checked(TrainConfig, attention_config), tmp_path / "half")
    state = load_file(next((tmp_path / "half" / "checkpoints").glob("*/model_1.safetensors")))
    assert any("lora_A" in name for name in state) and not any("base_layer" in name for name in state)
    resumed = train(Checked(TrainConfig, attention_config), tmp_path / "half", resume=True).folder
    for name in ("pipeline/unet/diffusion_pytorch_model.safetensors", "energy/model.safetensors"):
        a, b = load_file(whole / name), load_file(resumed / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert (whole / "metrics.jsonl").read_text() == (resumed / "metrics.jsonl").read_text()
    assert '"imitation"' in (whole / "metrics.jsonl").read_text().splitlines()[0]
    assert yaml.safe_load((whole / "run.yaml").read_text())["sampler"]["lora"] == {
        "rank": 2,
        "alpha": None,
        "targets": None,
    }


@pytest.mark.parametrize(
    ("kind", "lora", "options", "says"),
    [
        ("sd", {"targets": ["to_q", "nose"]}, {}, "lora.targets: 'nose' names no layer .*; name some of conv, .*to_v"),
        ("sd", {"targets": ["o_q"]}, {}, "lora.targets: 'o_q' names no layer"),
        ("ddpm", {}, {}, "lora.targets: attention has no layers in this UNet2DModel; name some of conv, conv1"),
        ("sd", {"rank": 0}, {}, "lora.rank: 0 is not positive"),
        ("sd", {"alpha": 0.0}, {}, "lora.alpha: 0.0 is not positive"),
        ("sd", {}, {"weights": "random"}, "lora: adapters stand beside pretrained weights"),
        ("sd", None, {"precision": "bfloat16"}, "precision: weights that learn are float32, not bfloat16; set lora"),
    ],
)
def test_bad_options_are_one_line(source, kind, lora, options, says):
    with pytest.raises(ConfigError, match=says) as caught:
        sampler(source, kind, None if lora is None else Lora(**lora), **options)
    assert "\n" not in str(caught.value)


def test_other_layers_can_be_targets_and_pipelines_without_adapters_say_so(source, tmp_path):
    found = sampler(source, "ddpm", Lora(rank=2, targets=["conv1", "time_emb_proj"]))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in found.named_parameters() if "lora_" in name}
    assert adapted == {"conv1", "time_emb_proj"}
    changed = disturbed(found)
    before = means(changed)
    changed.network = merged(changed.network)
    torch.testing.assert_close(means(changed), before, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="lora: diffusers loads no adapters into a DDPMPipeline"):
        found.save_lora(tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_help_tells_the_options_of_adapters(attention_config, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(attention_config))
    assert main(["train", str(tmp_path / "run.yaml"), "--help"]) == 0
    said = capsys.readouterr().out
    assert "--sampler.lora.rank" in said and "--sampler.precision" in said
    assert main(["train", str(tmp_path / "run.yaml"), "--sampler.lora.rank", "0", "--out", str(tmp_path / "o")]) == 2
    assert "lora.rank: 0 is not positive" in capsys.readouterr().err and not (tmp_path / "o").exists()
