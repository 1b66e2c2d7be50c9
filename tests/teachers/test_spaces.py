"""Latent spaces against their autoencoders."""

import pytest
import torch
from dxmi_plugins.teachers.spaces import Latents, Pixels, space_of
from tiny import KINDS, kl


def images(n, seed=0):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("kind", ["dit", "ldm_kl", "sd", "sdxl", "sd3"])
def test_kl_latents_come_back_as_the_autoencoder_gives_them(kind):
    pipeline, x = KINDS[kind](), images(3)
    space = space_of(pipeline)
    with torch.no_grad():
        expected = space.vae(x, sample_posterior=False).sample
    torch.testing.assert_close(space.decode(space.encode(x)), expected)
    assert torch.equal(space.encode(x), space.encode(x))
    assert space.image_shape(space.encode(x).shape[1:]) == (1, 8, 8)


def test_vq_latents_come_back_as_the_autoencoder_gives_them():
    space, x = space_of(KINDS["ldm_vq"]()), images(3)
    with torch.no_grad():
        expected = space.vae(x).sample
    torch.testing.assert_close(space.decode(space.encode(x)), expected)


@pytest.mark.parametrize(
    ("options", "shift", "scale"),
    [
        ({"scaling_factor": 0.5}, 0.0, 0.5),
        ({"scaling_factor": 1.5, "shift_factor": 0.25}, 0.25, 1.5),
        (
            {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [1.0, 2.0, 4.0, 8.0]},
            torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(-1, 1, 1),
            torch.tensor([0.5, 0.25, 0.125, 0.0625]).reshape(-1, 1, 1),
        ),
    ],
)
def test_latents_are_shifted_and_scaled_as_pipelines_do(options, shift, scale):
    vae, x = kl(**options), images(2)
    with torch.no_grad():
        z = vae.encode(x).latent_dist.mean
    torch.testing.assert_close(Latents(vae).encode(x), (z - shift) * scale)


def test_many_images_are_coded_like_few():
    space, x = Latents(kl()), images(40)
    together = space.encode(x)
    torch.testing.assert_close(together[37:], space.encode(x[37:]))
    torch.testing.assert_close(space.decode(together)[37:], space.decode(together[37:]))


def test_the_autoencoder_is_frozen_and_latents_have_no_gradient():
    space = Latents(kl())
    assert not any(p.requires_grad for p in space.vae.parameters())
    assert not space.encode(images(1)).requires_grad


def test_pixels_are_left_alone():
    space, x = space_of(KINDS["ddpm"]()), images(2)
    assert isinstance(space, Pixels)
    assert space.encode(x) is x and space.decode(x) is x and space.image_shape((1, 8, 8)) == (1, 8, 8)
