"""dxmi: fine-tune pretrained diffusers pipelines to a few steps by a game between an energy and a sampler.

``__init__.pyi`` lists the names. They are lazy: whoever asks for one imports what it needs.
"""

from typing import Any

import lazy_loader

_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """One of the names of ``__init__.pyi``, or the version."""
    if name != "__version__":
        return _name(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dxmi")
    except PackageNotFoundError:
        return "unknown"  # a checkout that is not installed
