"""The ancestral scheduler against diffusers' DDPM and DDIM schedulers, Bayes' rule and a stock pipeline (MATH 2)."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from dxmi_plugins.schedulers.ancestral import AncestralScheduler, choose_nodes
from dxmi_plugins.schedulers.few_step import FewStepScheduler

from dxmi.api import ConfigError, Levels, Transition

N = 1000
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SHAPE = (2, 1, 4, 4)


def in_double(scheduler):
    """A diffusers scheduler whose tables are float64, as the ancestral one's are."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def levels(kind="vp", n=N):
    """(alphas, sigmas) of N noise levels, the cleanest first."""
    if kind == "vp":
        abar = DDPMScheduler(num_train_timesteps=n).alphas_cumprod.double()
        return abar.sqrt(), (1 - abar).sqrt()
    sigmas = torch.linspace(0.01, 0.99, n, dtype=torch.float64)
    return (torch.ones_like(sigmas), 80 * sigmas) if kind == "ve" else (1 - sigmas, sigmas)


def bound(steps=4, kind="vp", prediction_type="epsilon", **options):
    options = {"clip_sample": False} | options
    alphas, sigmas = levels(kind)
    return AncestralScheduler(steps=steps, **options).bind(Levels(torch.arange(N), alphas, sigmas, prediction_type))


def law_at(scheduler, output, x, *steps):
    return Transition(*scheduler.transition(output, x, torch.tensor(steps)))


def noise(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny_unet(seed=0):
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ).eval()


# Nodes


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 7, 10, 17, 50, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_even_nodes_are_those_of_diffusers(spacing, steps):
    theirs = DDIMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    assert choose_nodes(spacing, steps, *levels()) == theirs.timesteps.tolist()


def test_quadratic_nodes_are_squares_of_even_roots():
    roots = np.linspace(0, np.sqrt(0.8 * N), 10)
    assert choose_nodes("quadratic", 10, *levels()) == (roots**2).astype(int).tolist()[::-1]


@pytest.mark.parametrize("steps", [2, 4, 10])
def test_logsnr_nodes_are_evenly_spaced_within_one_level(steps):
    alphas, sigmas = levels()
    log_snr = 2 * (alphas / sigmas).log()
    chosen = choose_nodes("logsnr", steps, alphas, sigmas)
    assert chosen[0] == N - 1
    for k, node in enumerate(chosen):
        wanted = log_snr[-1] + k / steps * (log_snr[0] - log_snr[-1])
        beside = log_snr[max(node - 1, 0) : node + 2]
        assert beside.min() <= wanted <= beside.max()


@pytest.mark.parametrize("kind", ["vp", "flow"])
@pytest.mark.parametrize(("steps", "shift"), [(1, 0.0), (2, 0.0), (4, 0.0), (4, -1.0), (10, 0.5)])
def test_midpoints_are_those_of_equal_parts_of_log_snr_within_one_level(kind, steps, shift):
    rows = bound(steps, kind, nodes="midpoints", logsnr_shift=shift).rows
    part = 3.5 / steps**0.5
    wanted = shift - part * (steps - 1) / 2 + part * torch.arange(steps, dtype=torch.float64)
    found = 2 * (rows[:, 1] / rows[:, 2]).log()
    alphas, sigmas = levels(kind)
    gaps = (2 * (alphas / sigmas).log()).diff().abs()
    for near, exact in zip(found, wanted, strict=True):
        place = (2 * (alphas / sigmas).log() - exact).abs().argmin()
        assert (near - exact).abs() <= gaps[max(place - 1, 0) : place + 1].max() / 2 + 1e-9
    assert (rows[:-1, 5] > 0.1 * rows[:-1, 4]).all()  # the stds of (2.1) are no smaller than a few steps need


def test_four_midpoints_of_linear_betas():
    """Near the nodes that did best on digits."""
    assert choose_nodes("midpoints", 4, *levels()) == [514, 345, 181, 78]
    assert choose_nodes("midpoints", 2, *levels()) == [381, 154]
    assert choose_nodes("midpoints", 1, *levels()) == [258]


def test_listed_nodes_are_taken_as_they_are():
    scheduler = bound(steps=3, nodes=[700, 30, 2])
    assert scheduler.timesteps.tolist() == [700, 30, 2]
    alphas, sigmas = levels()
    assert torch.equal(scheduler.rows[:, 1], alphas[[700, 30, 2]])
    assert torch.equal(scheduler.rows[:, 2], sigmas[[700, 30, 2]])
    assert torch.equal(scheduler.rows[:-1, 3:5], scheduler.rows[1:, 1:3])  # each row ends where the next begins
    assert scheduler.rows[-1, 3:5].tolist() == [1, 0]  # and the last one at the data


@pytest.mark.parametrize(
    "nodes, steps, named",
    [
        ("trailing", N + 1, "steps"),
        ("trailing", 0, "steps"),
        ("karras", 4, "nodes.*karras"),
        ([1, 2, 3], 3, "nodes"),
        ([9, 9, 1], 3, "nodes"),
        ([9, 1], 3, "nodes"),
        ([N, 1], 2, "nodes"),
        ([5, -1], 2, "nodes"),
        ("quadratic", 999, "nodes"),
        ("midpoints", 999, "nodes"),
        ("middles", 3, "^nodes: 'middles' is not trailing, .*midpoints"),
    ],
)
def test_impossible_nodes_are_refused(nodes, steps, named):
    with pytest.raises(ConfigError, match=named):
        choose_nodes(nodes, steps, *levels())


@pytest.mark.parametrize(
    "options, named",
    [
        ({"steps": 0}, "steps"),
        ({"eta": -0.1}, "eta"),
        ({"eta": 1.1}, "eta"),
        ({"last_std": 0.0}, "last_std"),
        ({"nodes": "karras", "rho": 0.0}, "^rho: 0.0 is not positive"),
        ({"logsnr_shift": 1.0}, "^logsnr_shift: nodes 'trailing' have none; set nodes: midpoints"),
        ({"extra_node": True}, "^extra_node: nodes 'trailing' have none"),
        ({"nodes": "karras", "extra_node": True, "eta": 0.0}, "^extra_node: without noise"),
    ],
)
def test_impossible_options_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        AncestralScheduler(**options)


# Transitions


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("spacing, steps", [("trailing", 4), ("trailing", 7), ("leading", 10)])
def test_eta_one_is_the_posterior_of_ddpm(spacing, steps, prediction_type):
    theirs = in_double(
        DDPMScheduler(
            variance_type="fixed_small",
            clip_sample=False,
            timestep_spacing=spacing,
            prediction_type=prediction_type,
        )
    )
    theirs.set_timesteps(steps)
    ours = bound(steps, prediction_type=prediction_type, nodes=spacing)
    x, output = noise(0), noise(1)
    for k, node in enumerate(ours.timesteps.tolist()):
        law = law_at(ours, output, x, k)
        step = theirs.step(output, node, x, generator=generator(2))
        _, a, s, *_ = ours.rows[k]
        torch.testing.assert_close(ours.x0hat(output, x, a, s), step.pred_original_sample, rtol=1e-10, atol=1e-10)
        if k < steps - 1:
            std = theirs._get_variance(node).sqrt()
            torch.testing.assert_close(law.std.squeeze(), std, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(law.mean, step.prev_sample - std * noise(2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_eta_zero_is_ddim(steps, prediction_type):
    theirs = in_double(
        DDIMScheduler(
            clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", prediction_type=prediction_type
        )
    )
    theirs.set_timesteps(steps)
    ours = bound(steps, prediction_type=prediction_type, eta=0.0)
    x, output = noise(0), noise(1)
    for k, node in enumerate(ours.timesteps.tolist()):
        step = theirs.step(output, node, x)
        law = law_at(ours, output, x, k)
        _, a, s, *_ = ours.rows[k]
        torch.testing.assert_close(law.mean, step.prev_sample, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours.x0hat(output, x, a, s), step.pred_original_sample, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
def test_eta_one_is_bayes_rule_for_every_noise_process(kind):
    scheduler = bound(5, kind, prediction_type="sample")
    x0, x = noise(0), noise(1)
    for k, (_, a_t, s_t, a_s, s_s, _) in enumerate(scheduler.rows[:-1]):
        ratio = a_t / a_s  # x_t | x_s ~ N(ratio*x_s, s_t^2 - ratio^2*s_s^2), x_s | x0 ~ N(a_s*x0, s_s^2)
        likelihood = s_t**2 - ratio**2 * s_s**2
        variance = 1 / (1 / s_s**2 + ratio**2 / likelihood)
        mean = variance * (a_s * x0 / s_s**2 + ratio * x / likelihood)
        law = law_at(scheduler, x0, x, k)
        torch.testing.assert_close(law.mean, mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(law.std.squeeze(), variance.sqrt(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_true_noise_keeps_the_marginal(kind, eta):
    """x_s - alpha_s*x0 has variance sigma_s^2: what is kept of eps plus what is added, MATH (2.1)."""
    scheduler = bound(6, kind, eta=eta)
    x0, eps = noise(0), noise(1)
    for k, (_, a_t, s_t, a_s, s_s, std) in enumerate(scheduler.rows[:-1]):
        law = law_at(scheduler, eps, a_t * x0 + s_t * eps, k)
        kept = (law.mean - a_s * x0) / eps
        assert 0 < std < s_s
        torch.testing.assert_close(kept**2 + std**2, (s_s**2).expand(SHAPE), rtol=1e-8, atol=1e-12)


def test_true_noise_takes_the_last_step_to_the_data():
    scheduler = bound(6)
    x0, eps = noise(0), noise(1)
    _, a_t, s_t, *_ = scheduler.rows[-1]
    law = law_at(scheduler, eps, a_t * x0 + s_t * eps, 5)
    torch.testing.assert_close(law.mean, x0)


def test_clipping_touches_the_last_mean_alone():
    open_, clipped = bound(3), bound(3, clip_sample=True)
    x, output = 3 * noise(0), noise(1)
    for k in range(3):
        expected = law_at(open_, output, x, k).mean
        expected = expected.clamp(-1, 1) if k == 2 else expected
        assert expected.abs().max() > 1 or k == 2
        torch.testing.assert_close(law_at(clipped, output, x, k).mean, expected)


@pytest.mark.parametrize("eta, stds", [(1.0, slice(-1, None)), (0.0, slice(None))])
def test_last_std_is_that_of_the_last_step_and_of_all_without_eta(eta, stds):
    assert set(bound(4, eta=eta, last_std=0.07).rows[stds, 5].tolist()) == {0.07}


def test_times_index_rows_chain_by_chain():
    scheduler = bound(3)
    x, output = noise(0, (3, 2)), noise(1, (3, 2))
    together = law_at(scheduler, output, x, 2, 0, 1)
    for b, k in enumerate([2, 0, 1]):
        alone = law_at(scheduler, output[b : b + 1], x[b : b + 1], k)
        torch.testing.assert_close(together.mean[b], alone.mean[0])
        torch.testing.assert_close(together.std[b], alone.std[0])


def test_gradients_reach_the_output():
    output = noise(1).requires_grad_()
    law_at(bound(), output, noise(0), 1).mean.sum().backward()
    assert (output.grad != 0).all()


# Products


def test_with_stds_changes_stds_only():
    before = bound(3)
    after = before.with_stds([0.5, 0.25, 0.125])
    assert after.rows[:, 5].tolist() == [0.5, 0.25, 0.125]
    assert torch.equal(after.rows[:, :5], before.rows[:, :5])
    x, output = noise(0), noise(1)
    assert torch.equal(law_at(after, output, x, 1, 0).mean, law_at(before, output, x, 1, 0).mean)
    assert before.rows[0, 5] != 0.5


def test_with_stds_wants_one_for_each_step():
    with pytest.raises(ValueError):
        bound(3).with_stds([0.5, 0.25])


@pytest.mark.parametrize("nodes", ["quadratic", [900, 333, 1]])
def test_saved_scheduler_makes_identical_transitions(tmp_path, nodes):
    before = bound(3, prediction_type="v_prediction", nodes=nodes, eta=0.7).with_stds([1 / 3, 0.1, 1e-3])
    before.save_pretrained(tmp_path)
    after = FewStepScheduler.from_pretrained(tmp_path)
    assert torch.equal(after.rows, before.rows)
    for k in range(3):
        ours, theirs = (law_at(s, noise(1), noise(0), k) for s in (before, after))
        assert torch.equal(ours.mean, theirs.mean) and torch.equal(ours.std, theirs.std)


# What pipelines call


@pytest.mark.parametrize("asked", [None, 4, 5, 1000])
def test_any_number_of_steps_from_t_on_means_t(asked):
    scheduler = bound(4)
    scheduler.set_timesteps(asked)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249] and len(scheduler) == 4


def test_fewer_steps_than_were_learned_are_refused():
    with pytest.raises(ValueError, match="num_inference_steps.*4"):
        bound(4).set_timesteps(3)


def test_step_is_mean_plus_std_times_noise():
    scheduler = bound(4)
    x, output = noise(0), noise(1)
    mean, std = law_at(scheduler, output, x, 1)
    step = scheduler.step(output, 749, x, generator=generator(5)).prev_sample
    torch.testing.assert_close(step, mean + std * noise(5))
    assert torch.equal(step, scheduler.step(output, torch.tensor(749), x, generator(5), return_dict=False)[0])
    assert not torch.equal(step, scheduler.step(output, 749, x, generator=generator(6)).prev_sample)


def test_step_takes_a_generator_for_each_image():
    scheduler = bound(4)
    x, output = noise(0), noise(1)
    both = scheduler.step(output, 499, x, generator=[generator(3), generator(4)]).prev_sample
    for b, seed in enumerate((3, 4)):
        alone = scheduler.step(output[b : b + 1], 499, x[b : b + 1], generator=generator(seed)).prev_sample
        torch.testing.assert_close(both[b : b + 1], alone)


@torch.no_grad()
def test_stock_pipeline_draws_the_chain():
    unet, scheduler = tiny_unet(), bound(3, prediction_type="v_prediction")
    pipeline = DDPMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    found = torch.from_numpy(pipeline(batch_size=2, generator=generator(), output_type="np").images)
    source = generator()
    x = torch.randn(2, 1, 8, 8, generator=source)
    for k, node in enumerate(scheduler.timesteps):
        x = law_at(scheduler, unet(x, node).sample, x, k).sample(source)
    torch.testing.assert_close(found, (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert ((found > 0) & (found < 1)).float().mean() > 0.5  # the clamp hides little


@torch.no_grad()
def test_stock_pipeline_saves_and_loads(tmp_path):
    before = DDPMPipeline(tiny_unet(), bound(2))
    before.save_pretrained(tmp_path)
    after = DDPMPipeline.from_pretrained(tmp_path)
    assert isinstance(after.scheduler, FewStepScheduler)
    for pipeline in (before, after):
        pipeline.set_progress_bar_config(disable=True)
    images = [p(generator=generator(), num_inference_steps=2, output_type="pt").images for p in (before, after)]
    torch.testing.assert_close(*images)
    with pytest.raises(ValueError, match="num_inference_steps"):
        after(num_inference_steps=1)


@pytest.mark.parametrize("call", ["level", "transition"])
def test_the_table_is_copied_to_a_device_once(call):
    scheduler = FewStepScheduler([[500, 0.8, 0.6, 1.0, 0.1, 0.1]])
    t, x = torch.zeros(2, dtype=torch.long, device="meta"), torch.zeros(SHAPE, device="meta")
    given, kept = (t,) if call == "level" else (x, x, t), []
    for _ in range(2):
        getattr(scheduler, call)(*given)
        kept.append(scheduler.rows)
    assert kept[0] is kept[1] and kept[0].device.type == "meta"
