"""The energies conv and mlp."""

import pytest
import torch
from dxmi_plugins.energies.conv import ConvEnergy, ResidualBlock
from dxmi_plugins.energies.known.combinators import Tempered
from dxmi_plugins.energies.mlp import MLPEnergy
from torch import nn
from torch.nn.functional import silu

from dxmi.api import ConfigError

KINDS = [lambda **options: ConvEnergy(width=8, **options), lambda **options: MLPEnergy(width=8, **options)]
both = pytest.mark.parametrize("build", KINDS, ids=["conv", "mlp"])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@both
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 5, 7), (1, 1, 1), (1, 1, 9), (4, 9, 1)])
def test_one_number_for_each_image_of_any_size(build, shape):
    energy = build()
    assert energy(torch.randn(3, *shape)).shape == (3,)
    assert energy(torch.randn(1, *shape)).shape == (1,)


def test_mlp_takes_vectors():
    assert MLPEnergy(width=8)(torch.randn(5, 2)).shape == (5,)


@pytest.mark.parametrize(
    "energy",
    [ConvEnergy(width=1, blocks=1), ConvEnergy(width=3, blocks=2), ConvEnergy(width=4, blocks=9)]
    + [MLPEnergy(width=1, depth=1), MLPEnergy(width=5, depth=4)],
    ids=lambda energy: type(energy).__name__,
)
def test_width_and_depth_are_free(energy):
    value = energy(torch.randn(2, 1, 8, 8))
    assert value.shape == (2,) and value.isfinite().all()


@both
def test_images_do_not_see_each_other(build):
    energy, x = build(), torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(energy(x), torch.cat([energy(one[None]) for one in x]))


@both
@pytest.mark.parametrize("time", [False, True])
def test_gradient_reaches_the_image_and_every_parameter(build, time):
    energy, x = build(time=time), torch.randn(4, 2, 8, 8, requires_grad=True)
    energy(x, torch.tensor([0, 1, 2, 3]) if time else None).sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    for name, parameter in energy.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0, name


@both
def test_time_option_tells_all_steps_apart(build):
    energy, x = build(time=True), torch.randn(1, 1, 8, 8).expand(11, -1, -1, -1)
    values = energy(x, torch.arange(11))
    gaps = (values[:, None] - values[None]).abs() + torch.eye(11)
    assert gaps.min() > 1e-6
    torch.testing.assert_close(energy(x[:2], torch.tensor([4, 4])), values[4].expand(2))


@both
def test_time_option_needs_a_time(build):
    with pytest.raises(ConfigError, match="time"):
        build(time=True)(torch.randn(2, 1, 8, 8))


@both
def test_without_the_option_time_changes_nothing(build):
    energy, x = build(), torch.randn(2, 1, 8, 8)
    assert torch.equal(energy(x, torch.tensor([0, 5])), energy(x))


@pytest.mark.parametrize(
    "build, options",
    [
        (ConvEnergy, {"width": 0}),
        (ConvEnergy, {"blocks": 0}),
        (MLPEnergy, {"width": 0}),
        (MLPEnergy, {"depth": 0}),
        (MLPEnergy, {"width": -3}),
    ],
)
def test_impossible_options_are_refused(build, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build(**options)


@both
@pytest.mark.parametrize("time", [False, True])
def test_state_loads_into_a_network_that_has_seen_no_batch(build, time):
    x, t = torch.randn(3, 2, 8, 8), torch.tensor([0, 1, 2]) if time else None
    before, after = build(time=time), build(time=time)
    expected = before(x, t)
    after.load_state_dict(before.state_dict())
    assert torch.equal(after(x, t), expected)


# conv


def test_the_papers_network():
    """128, 128, 256, 256, 256, 256 channels, halving in blocks 1, 3 and 5 (MATH 3)."""
    energy, shapes = ConvEnergy(width=128, blocks=6), []
    for block in energy.blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        energy(torch.randn(1, 3, 32, 32))
    sizes = [16, 16, 8, 8, 4, 4]
    assert shapes == [(c, s, s) for c, s in zip([128, 128, 256, 256, 256, 256], sizes, strict=True)]
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase | nn.GroupNorm) for m in energy.modules())


@torch.no_grad()
def test_scale_and_bias_come_last():
    energy, x = ConvEnergy(width=4, blocks=1), torch.randn(3, 1, 8, 8)
    plain = energy(x)
    energy.scale.fill_(2.0)
    energy.bias.fill_(-3.0)
    torch.testing.assert_close(energy(x), 2 * plain - 3)


@torch.no_grad()
def test_the_pool_is_a_sum():
    """What a pattern adds is the same on a larger canvas (a mean would dilute it), and two far apart add up."""
    energy = ConvEnergy(width=4, blocks=1).double()
    pattern = torch.randn(2, 2, dtype=torch.float64)

    def added(size, *corners):
        x = torch.zeros(2, 1, size, size, dtype=torch.float64)
        for top, left in corners:
            x[1, 0, top : top + 2, left : left + 2] = pattern
        return energy(x).diff()

    once = added(20, (8, 8))
    assert once.abs() > 1e-6
    torch.testing.assert_close(added(40, (8, 8)), once)
    torch.testing.assert_close(added(40, (8, 8), (24, 26)), 2 * once)


@torch.no_grad()
def test_a_block_of_zero_convolutions_is_its_shortcut():
    block = ResidualBlock(3, 3, pool=False)
    for parameter in (*block.conv1.parameters(), *block.conv2.parameters()):
        parameter.zero_()
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(block(x), x)
    block.pool = True
    torch.testing.assert_close(block(x)[:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)))


# mlp


@torch.no_grad()
def test_one_hidden_layer_in_closed_form():
    energy, x = MLPEnergy(width=3, depth=1), torch.randn(4, 2, 5)
    energy(x)
    w, b, head = energy.stem.weight, energy.stem.bias, energy.body[-1]
    expected = silu(x.flatten(1) @ w.T + b) @ head.weight[0] + head.bias
    torch.testing.assert_close(energy(x), expected)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_hidden_layers(depth):
    energy = MLPEnergy(width=3, depth=depth)
    energy(torch.randn(1, 2))
    assert sum(isinstance(m, nn.Linear) for m in energy.modules()) == depth + 1


@pytest.mark.parametrize("build", [MLPEnergy, ConvEnergy])
@pytest.mark.parametrize(
    ("name", "smooth"), [("softplus", True), ("silu", True), ("relu", False), ("leaky_relu", False)]
)
def test_activations_are_smooth_or_not(build, name, smooth):
    """A network of relus is linear between its kinks: its second derivatives along a line are zero."""
    torch.manual_seed(0)
    energy = build(width=8, activation=name).double()
    x, v = torch.randn(1, 1, 4, 4, dtype=torch.float64), torch.randn(1, 1, 4, 4, dtype=torch.float64)

    def second(t):
        t = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(energy(x + t * v).sum(), t, create_graph=True)
        if not first.requires_grad:
            return 0.0
        return torch.autograd.grad(first, t)[0].item()

    curved = [abs(second(t)) > 1e-9 for t in (0.0, 0.3, 0.7)]
    assert all(curved) if smooth else not any(curved)


def test_defaults_are_the_activations_of_old():
    assert [type(m) for m in MLPEnergy().body if not hasattr(m, "weight")] == [nn.SiLU] * 2
    assert ConvEnergy().act.negative_slope == 0.2
    with pytest.raises(ConfigError, match="activation: 'sine' is none of silu, gelu"):
        MLPEnergy(activation="sine")


@both
def test_a_noise_level_is_read_as_the_time(build):
    """A number in [0, 1000], None being 0; near ones give near energies, and all of the network learns."""
    energy, x = build(time="noise"), torch.randn(1, 1, 8, 8).repeat(4, 1, 1, 1)
    e = energy(x, torch.tensor([0.0, 0.001, 500.0, 1000.0]))
    assert energy.reads_noise and not build(time=True).reads_noise and not build().reads_noise
    assert torch.equal(energy(x)[:1], e[:1]) and torch.equal(energy(x, torch.zeros(4, dtype=torch.long)), energy(x))
    assert 0 < (e[1] - e[0]).abs() < 0.01 * min((e[2] - e[0]).abs(), (e[3] - e[2]).abs())
    energy(torch.randn(4, 1, 8, 8), torch.tensor([0.0, 250.0, 500.0, 1000.0])).sum().backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in energy.parameters())


def test_products_read_noise_where_all_experts_do():
    told, steps = (MLPEnergy(width=8, time=time) for time in ("noise", True))
    x, t = torch.randn(3, 2), torch.tensor([0.0, 10.0, 900.0])
    product = told + 2 * told
    assert product.reads_noise and Tempered(told).reads_noise and not (steps + steps).reads_noise
    torch.testing.assert_close(product(x, t), 3 * told(x, t))
    with pytest.raises(ConfigError, match="^experts: some are told how noisy x is, others a step"):
        told + steps
