"""The annealed Langevin scheduler in a stock pipeline, and the noise levels that Song and Ermon 2020 suggest."""

import math

import pytest
import torch
from conftest import tiny_unet
from diffusers import DDPMPipeline, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.samplers.mcmc.annealed_langevin import AnnealedLangevin
from dxmi_plugins.schedulers.annealed_langevin import AnnealedLangevinScheduler, suggest_sigmas
from dxmi_plugins.schedulers.noise_ladder import best_step_size, geometric_sigmas, largest_distance, level_ratio
from torch import Generator, nn

from dxmi.api import ConfigError
from dxmi.chains import known_cost, rollout
from dxmi.cli.main import main

MEAN, STD = 0.1, 0.15  # pixels of the data, far inside [-1, 1]
LEVELS = {"sigma_max": 1.0, "sigma_min": 0.01, "num_train_timesteps": 25}


class GaussianUNet(ModelMixin, ConfigMixin):
    """What a perfect network says of pixels N(mean, std^2) with noise, in the clothes of a UNet2DModel."""

    @register_to_config
    def __init__(self, sigmas, predicts="score", mean=MEAN, std=STD, sample_size=8, in_channels=1):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        c = self.config
        sigma = c.sigmas[int(t)]
        score = (c.mean - x) / (c.std**2 + sigma**2)
        return UNet2DOutput({"score": score, "epsilon": -sigma * score, "sample": x + sigma**2 * score}[c.predicts])


def pipeline(predicts="score", **options):
    scheduler = AnnealedLangevinScheduler(prediction_type=predicts, **{**LEVELS, **options})
    made = DDPMPipeline(unet=GaussianUNet(scheduler.sigmas.tolist(), predicts), scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def draw(made, n, levels=25, seed=0):
    """Pixels in the data's units, -1..1."""
    out = made(n, Generator().manual_seed(seed), levels, output_type="pt").images
    return 2 * out - 1


def recursion(scheduler):
    """Mean and variance after all steps on the Gaussian, from N(0, sigma_max^2)."""
    mean, variance = -MEAN, float(scheduler.sigmas[-1]) ** 2
    for t in scheduler.timesteps[1:-1].tolist():
        sigma = float(scheduler.sigmas[t])
        h = scheduler.step_size * (sigma / float(scheduler.sigmas[0])) ** 2
        kept = 1 - h / (STD**2 + sigma**2)
        mean, variance = kept * mean, kept**2 * variance + 2 * h
    kept = STD**2 / (STD**2 + float(scheduler.sigmas[0]) ** 2)
    return MEAN + kept * mean, kept**2 * variance


@pytest.mark.parametrize("levels", [25, 13])
def test_a_stock_pipeline_draws_the_data(levels):
    made = pipeline(inner=20, step_size=5e-5)
    pixels = draw(made, 300, levels)
    mean, variance = recursion(made.scheduler)
    assert mean == pytest.approx(MEAN, abs=1e-6) and variance == pytest.approx(STD**2, rel=0.05)
    n = pixels.numel()
    assert pixels.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert pixels.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


def test_the_chain_is_the_samplers_with_the_same_noise():
    made = pipeline()
    sigmas = made.scheduler.sigmas.flip(0).tolist()
    sampler = AnnealedLangevin(sigmas=sigmas, inner=5)
    pixels = GaussianMixture(means=[[MEAN] * 64], covariances=STD**2)
    chain = rollout(sampler, known_cost(pixels, sampler), (1, 64), Generator().manual_seed(0))
    torch.testing.assert_close(draw(made, 1).flatten(1), chain[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("predicts", ["epsilon", "sample"])
def test_prediction_types_say_the_same(predicts):
    torch.testing.assert_close(draw(pipeline(predicts), 2), draw(pipeline(), 2), rtol=0, atol=1e-4)


def test_saved_and_loaded_it_draws_the_same(tmp_path):
    made = pipeline(sigmas=[1.0, 0.5, 0.1, 0.02], inner=3)
    made.scheduler.save_pretrained(tmp_path)
    loaded = AnnealedLangevinScheduler.from_pretrained(tmp_path)
    assert loaded.config.num_train_timesteps == 4 and loaded.sigmas.equal(made.scheduler.sigmas)
    again = DDPMPipeline(unet=made.unet, scheduler=loaded)
    assert draw(again, 2, 4).equal(draw(made, 2, 4))


def test_a_pipeline_with_a_network_is_saved_and_loaded(tmp_path):
    made = DDPMPipeline(unet=tiny_unet(), scheduler=AnnealedLangevinScheduler(**LEVELS, inner=1))
    made.save_pretrained(tmp_path)
    again = DDPMPipeline.from_pretrained(tmp_path)
    assert draw(again, 2, 5).equal(draw(made, 2, 5))


def test_timesteps_visit_levels_from_the_noisiest_to_the_cleanest():
    scheduler = AnnealedLangevinScheduler(**LEVELS, inner=2)
    assert scheduler.sigmas[[0, -1]].tolist() == pytest.approx([0.01, 1.0]) and len(scheduler) == 25
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [24, 24, 24, 12, 12, 0, 0, 0] and scheduler.num_inference_steps == 3
    scheduler.set_timesteps()
    assert len(scheduler.timesteps) == 1 + 25 * 2 + 1
    assert len(AnnealedLangevinScheduler(**LEVELS, inner=2, denoise=False).timesteps) == 1 + 25 * 2


@pytest.mark.parametrize("steps", [0, 26])
def test_levels_that_are_not_there_are_refused(steps, tmp_path, capsys):
    made = DDPMPipeline(unet=tiny_unet(), scheduler=AnnealedLangevinScheduler(**LEVELS, inner=1))
    complaint = f"num_inference_steps: {steps} is not between 1 and the number of noise levels, 25"
    with pytest.raises(ValueError, match=complaint):
        made.scheduler.set_timesteps(steps)
    made.save_pretrained(tmp_path / "pipeline")
    out = tmp_path / "grid.png"
    command = ["sample", str(tmp_path / "pipeline"), "-n", "1", "--out", str(out)]
    assert main([*command, "--steps", str(steps)]) == 2 and not out.exists()
    told = f"{steps} with AnnealedLangevinScheduler: {complaint}" if steps else "0 is not positive"
    assert capsys.readouterr().err == f"dxmi: --steps: {told}\n"
    assert main(command) == 0 and out.exists()  # all 25, though a pipeline asks for 1000 where nobody says


def test_steps_go_in_order_and_may_begin_at_any_level():
    scheduler, x = AnnealedLangevinScheduler(**LEVELS, inner=2), torch.randn(1, 1, 4, 4)
    scheduler.set_timesteps(3)
    for t in (12, 12, 0):  # as from an image to an image: no step scales it
        assert not torch.equal(scheduler.step(x, t, x, Generator().manual_seed(0)).prev_sample, scheduler.sigmas[t] * x)
    with pytest.raises(ValueError, match="timestep 12 is not the next one"):
        scheduler.step(x, 12, x)
    scheduler.set_timesteps(3)
    (scaled,) = scheduler.step(x, torch.tensor(24), x, return_dict=False)
    torch.testing.assert_close(scaled, 1.0 * x)


def test_noise_is_added_as_the_levels_say():
    scheduler, x = AnnealedLangevinScheduler(**LEVELS), torch.randn(2, 1, 4, 4)
    noise, t = torch.randn_like(x), torch.tensor([0, 24])
    expected = torch.stack([x[0] + 0.01 * noise[0], x[1] + noise[1]])
    torch.testing.assert_close(scheduler.add_noise(x, noise, t), expected)
    assert scheduler.scale_model_input(x, 3) is x and scheduler.init_noise_sigma == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type: 'v_prediction' is not score"),
        ({"num_train_timesteps": 1}, "num_train_timesteps: 1 levels are no ladder"),
        ({"sigmas": [0.1, 0.2]}, "sigmas: 0.1 is followed by 0.2"),
        ({"step_size": -1.0}, "step_size: -1.0 is not positive"),
        ({"inner": 0}, "inner: 0 steps a level"),
    ],
)
def test_wrong_options(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        AnnealedLangevinScheduler(**options)


# Song and Ermon 2020: the published noise levels and step sizes (TOOLBOX row 24), from 0.01 up.
@pytest.mark.parametrize(
    ("sigma_max", "levels", "inner", "published"),
    [(50, 232, 5, 6.2e-6), (90, 500, 5, 3.3e-6), (190, 1086, 3, 1.8e-6), (348, 2311, 3, 9e-7)],
    ids=["CIFAR-10", "CelebA", "LSUN bedroom", "FFHQ"],
)
def test_published_step_sizes(sigma_max, levels, inner, published):
    ratio = (sigma_max / 0.01) ** (1 / (levels - 1))
    found = best_step_size(0.01, ratio, inner)
    assert found == pytest.approx(published, rel=0.02)  # they have two digits
    assert AnnealedLangevinScheduler(None, sigma_max, 0.01, levels, inner).step_size == pytest.approx(found)


def test_step_size_and_ratio_for_cifar_in_more_digits():
    assert best_step_size(0.01, 5000 ** (1 / 231), 5) == pytest.approx(6.19e-6, rel=0.01)
    ratio = level_ratio(3072)
    assert ratio == pytest.approx(1.0398, abs=5e-5)
    assert 1 + round(math.log(5000) / math.log(ratio)) == 219
    assert level_ratio(2) == 2  # no ratio is too wide for technique 2 there


def test_the_step_size_leaves_the_least_noise_too_much():
    for ratio, inner in ((1.04, 5), (1.7, 1), (1.7, 100)):

        def variance(h, ratio=ratio, inner=inner):
            v = ratio**2
            for _ in range(inner):
                v = (1 - h) ** 2 * v + 2 * h  # one Langevin step on data of one point, sigma = 1
            return v

        best = best_step_size(1.0, ratio, inner)
        assert 1 < variance(best) < min(variance(0.99 * best), variance(1.01 * best))


def test_geometric_levels():
    sigmas = geometric_sigmas(50.0, 0.01, 232)
    assert sigmas[0] == 50.0 and sigmas[-1] == 0.01 and len(sigmas) == 232
    assert {round(a / b, 9) for a, b in zip(sigmas, sigmas[1:], strict=False)} == {round(5000 ** (1 / 231), 9)}


def test_the_largest_distance_is_that_of_all_pairs():
    data = torch.randn(1200, 3, 2, 2, generator=Generator().manual_seed(0)) + 100
    pairs = (data.flatten(1)[:, None].double() - data.flatten(1)[None].double()).square().sum(2).max().sqrt()
    assert largest_distance(data) == pytest.approx(pairs.item(), rel=1e-5)
    few = largest_distance(data, most=100)
    assert few == largest_distance(data, most=100) < pairs


def test_levels_suggested_for_data():
    data = torch.rand(100, 3, 32, 32, generator=Generator().manual_seed(0))
    sigmas, step_size = suggest_sigmas(data)
    assert sigmas[0] == pytest.approx(largest_distance(data)) and sigmas[-1] == 0.01
    ratio = sigmas[0] / sigmas[1]
    assert ratio == pytest.approx(level_ratio(3072), rel=1e-3) and step_size == best_step_size(0.01, ratio, 5)
    assert AnnealedLangevinScheduler(sigmas=sigmas, step_size=step_size).config.num_train_timesteps == len(sigmas)
    with pytest.raises(ConfigError, match="data: no two events are further apart than sigma_min, 0.01"):
        suggest_sigmas(torch.ones(5, 4))
