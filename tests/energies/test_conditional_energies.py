"""Energies conv and mlp of labels and of text embeddings: projections, by Miyato and Koyama 2018."""

import pytest
import torch
from dxmi_plugins.energies.conv import ConvEnergy
from dxmi_plugins.energies.mlp import MLPEnergy

from dxmi.api import ConfigError, Product
from dxmi.runs import load_energy, save_energy

KINDS = [lambda **options: ConvEnergy(width=8, blocks=2, **options), lambda **options: MLPEnergy(width=8, **options)]
both = pytest.mark.parametrize("build", KINDS, ids=["conv", "mlp"])
asked = pytest.mark.parametrize("options", [{"classes": 5}, {"text": True}], ids=["labels", "text"])
X = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8).sin()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def conditions(options):
    return torch.tensor([0, 3, 2, 4]) if "classes" in options else torch.randn(4, 6, 12)


def learned(energy, options):
    """With weights that are no initial zeros."""
    energy(X, cond=conditions(options))
    with torch.no_grad():
        for p in energy.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return energy


@both
@asked
def test_it_starts_as_the_energy_without_conditions(build, options):
    energy, plain = build(**options), build()
    cond = conditions(options)
    energy(X, cond=cond)
    plain.load_state_dict({k: v for k, v in energy.state_dict().items() if not k.startswith("projection")})
    assert torch.equal(energy(X, cond=cond), plain(X))
    assert torch.equal(plain(X, cond=cond), plain(X))  # without the option a condition is ignored


@both
def test_two_labels_differ_by_the_inner_product_of_their_embeddings(build):
    """E(x, y) - E(x, y') = <e(y) - e(y'), h(x)>: linear in the embeddings, with h what the head without them sees."""
    energy = learned(build(classes=5), {"classes": 5}).double()
    x, table = X.double(), energy.projection.table.weight
    head = (energy.linear if isinstance(energy, ConvEnergy) else energy.body[-1]).weight

    def gap(y, z):
        return energy(x, cond=torch.full((4,), y)) - energy(x, cond=torch.full((4,), z))

    h = torch.cat([torch.autograd.grad(energy(one[None], cond=torch.tensor([2])), head)[0] for one in x])
    torch.testing.assert_close(gap(1, 3), h @ (table[1] - table[3]))
    before = gap(1, 3)
    with torch.no_grad():
        table.mul_(2)
    torch.testing.assert_close(gap(1, 3), 2 * before)


@both
@asked
def test_rows_have_their_own_conditions(build, options):
    energy, cond = learned(build(**options), options), conditions(options)
    rows = torch.cat([energy(x[None], cond=c[None]) for x, c in zip(X, cond, strict=True)])
    torch.testing.assert_close(energy(X, cond=cond), rows)
    assert (energy(X, cond=cond.flip(0)) - energy(X, cond=cond)).abs().min() > 1e-3


@both
@asked
def test_gradient_reaches_the_image_and_every_parameter(build, options):
    energy, x = learned(build(**options), options), X.clone().requires_grad_()
    energy(x, cond=conditions(options)).sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in energy.parameters())


@both
@asked
def test_files_and_products_keep_the_condition(build, options, tmp_path):
    energy, cond = learned(build(**options), options), conditions(options)
    name = "conv" if isinstance(energy, ConvEnergy) else "mlp"
    sizes = {"width": 8, "blocks": 2} if name == "conv" else {"width": 8}
    save_energy(energy, {"name": name, **sizes, **options}, 4, tmp_path, (1, 8, 8))
    assert torch.equal(load_energy(tmp_path)(X, cond=cond), energy(X, cond=cond))
    torch.testing.assert_close(Product([energy], [2.0])(X, cond=cond), 2 * energy(X, cond=cond))


def test_text_is_seen_through_its_mean_and_maximum():
    energy, cond = learned(MLPEnergy(width=8, text=True), {"text": True}), torch.randn(4, 6, 12)
    shuffled = cond[:, torch.randperm(6)]
    torch.testing.assert_close(energy(X, cond=shuffled), energy(X, cond=cond))
    folded = torch.stack([cond.mean(1), cond.mean(1), cond.amax(1), 2 * cond.mean(1) - cond.amax(1)], 1)
    torch.testing.assert_close(energy(X, cond=folded), energy(X, cond=cond))
    flat = cond.mean(1, keepdim=True)
    assert (energy(X, cond=flat) - energy(X, cond=cond)).abs().min() > 1e-4
    assert (energy(X, cond=cond - flat) - energy(X, cond=cond)).abs().min() > 1e-4


@both
@pytest.mark.parametrize(
    ("options", "cond", "complaint"),
    [
        ({"classes": 3}, torch.tensor([0, 1, 2, 3]), r"^classes: labels 0\.\.3 are not all in 0\.\.2$"),
        ({"classes": 3}, torch.tensor([0, 1, -1, 2]), r"^classes: labels -1\.\.2 are not all in 0\.\.2$"),
        ({"classes": 3}, None, r"^classes: the energy asks for labels \(B,\), not none; 0 for"),
        ({"classes": 3}, torch.zeros(4, 6, 12), r"^classes: .* not float32 \(4, 6, 12\); 0 for"),
        ({"text": True}, torch.zeros(4, dtype=torch.long), r"^text: .*\(B,L,d\), not int64 \(4,\); false for"),
        ({"text": True}, None, r"^text: .* not none; false"),
    ],
)
def test_other_conditions_are_refused(build, options, cond, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build(**options)(X, cond=cond)


@both
def test_impossible_options_are_refused(build):
    with pytest.raises(ConfigError, match="^classes: -1 is negative"):
        build(classes=-1)
    with pytest.raises(ConfigError, match="^classes: .* labels or text, not both"):
        build(classes=2, text=True)
