"""The tiny pipelines of the other tests load and draw, and what they are told of an image matters."""

import pytest
import torch
from diffusers import DiffusionPipeline
from tiny import KINDS, draw, tiny


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads_and_draws(kind, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(tiny(kind, tmp_path))
    images = draw(pipeline)
    assert images.shape == (2, 1, 8, 8) and images.isfinite().all() and images.std() > 0.01
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(path.suffix in (".bin", ".pt") for path in files)
    assert sum(path.stat().st_size for path in files) < 1_000_000


@pytest.mark.parametrize("kind", ["classes", "dit"])
def test_labels_matter(kind, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(tiny(kind, tmp_path))
    one, other = draw(pipeline, labels=[0, 1]), draw(pipeline, labels=[2, 1])
    assert not torch.allclose(one[0], other[0], atol=1e-4) and torch.allclose(one[1], other[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_prompts_matter(kind, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(tiny(kind, tmp_path))
    assert not torch.allclose(draw(pipeline, prompt="a seven"), draw(pipeline, prompt="a zero"), atol=1e-4)
