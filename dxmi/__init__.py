"""dxmi: fine-tune pretrained diffusers pipelines to a few steps by a game between an energy and a sampler."""

from importlib.metadata import version

__version__ = version("dxmi")
