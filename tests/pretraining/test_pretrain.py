"""A teacher from scratch: the loss, and the command on the shipped digits."""

import pytest
import torch
from conftest import DIGITS, tiny_unet
from diffusers import DDPMPipeline, DDPMScheduler

from dxmi.cli.main import main
from dxmi.pretraining.noise_levels import ddpm_loss


class Perfect(torch.nn.Module):
    """The exact prediction for one fixed clean image."""

    def __init__(self, x0, scheduler):
        super().__init__()
        self.x0, self.scheduler = x0, scheduler

    def forward(self, x, t):
        abar = self.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        noise = (x - abar.sqrt() * self.x0) / (1 - abar).sqrt()
        kind = self.scheduler.config.prediction_type
        v = abar.sqrt() * noise - (1 - abar).sqrt() * self.x0
        return type("Output", (), {"sample": {"epsilon": noise, "sample": self.x0, "v_prediction": v}[kind]})


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_exact_denoiser_has_no_loss(kind):
    scheduler = DDPMScheduler(prediction_type=kind)
    x0, noise, t = torch.rand(5, 1, 8, 8) * 2 - 1, torch.randn(5, 1, 8, 8), torch.tensor([10, 100, 500, 900, 999])
    assert ddpm_loss(Perfect(x0, scheduler), scheduler, x0, noise, t).item() < 1e-8


def test_a_network_that_says_nothing_has_the_loss_of_its_target():
    """E||eps||^2/D = 1 for a prediction of zero."""

    class Zero(torch.nn.Module):
        def forward(self, x, t):
            return type("Output", (), {"sample": torch.zeros_like(x)})

    x0, noise = torch.zeros(500, 1, 8, 8), torch.randn(500, 1, 8, 8)
    loss = ddpm_loss(Zero(), DDPMScheduler(), x0, noise, torch.randint(1000, (500,)))
    assert loss.item() == pytest.approx(1, abs=0.03)


@pytest.fixture
def recipe(write):
    unet = {key: value for key, value in tiny_unet().config.items() if key in ("layers_per_block", "norm_num_groups")}
    unet |= {"block_out_channels": [8], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    config = {"data": {"path": str(DIGITS), "batch_size": 16}, "unet": unet, "steps": 40, "warmup": 5, "lr": 5e-3}
    return lambda **changes: str(write(config | {"ema": 0.9} | changes))


def test_pretrain_saves_a_pipeline_that_learned(recipe, tmp_path, capsys):
    assert main(["pretrain", recipe(noise={"num_train_timesteps": 50}), "--out", str(tmp_path / "t")]) == 0
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "t")
    assert len(pipeline.scheduler) == 50 and pipeline.unet.config.sample_size == 8
    torch.manual_seed(0)
    x0, noise, t = torch.full((200, 1, 8, 8), -0.5), torch.randn(200, 1, 8, 8), torch.randint(50, (200,))
    with torch.no_grad():
        assert ddpm_loss(pipeline.unet, pipeline.scheduler, x0, noise, t).item() < 0.7
    assert main(["pretrain", recipe(), "--out", str(tmp_path / "t")]) == 2
    assert "already holds a pipeline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unet": {"blocks": 3}}, "unet.blocks: UNet2DModel has no such option"),
        ({"unet": {"block_out_channels": [8, 8, 8]}}, "unet: UNet2DModel refuses"),
        ({"noise": {"beta_schedule": "odd"}}, "noise: DDPMScheduler refuses"),
        ({"noise": {"prediction_type": "odd"}}, "noise.prediction_type: 'odd'"),
        ({"steps": 0}, "steps: 0"),
        ({"lr": "fast"}, "lr: expected a float"),
        ({"ema": 1.0}, "ema: 1.0"),
        ({"unett": {}}, "unett: no such key; nearest: unet"),
    ],
)
def test_bad_recipes_are_one_line(changes, says, recipe, tmp_path, capsys):
    assert main(["pretrain", recipe(**changes), "--out", str(tmp_path / "t")]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1 and not (tmp_path / "t").exists()
