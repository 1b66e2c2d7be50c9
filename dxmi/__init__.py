"""dxmi: fine-tune pretrained diffusers pipelines to a few steps by a game between an energy and a sampler.

``__init__.pyi`` lists the names. They are lazy: whoever asks for one imports what it needs.
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("dxmi")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"
