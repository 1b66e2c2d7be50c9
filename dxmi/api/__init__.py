"""The contracts between the game and its players: all that a plugin needs. ``__init__.pyi`` lists the names."""

import lazy_loader

# Lazy, so that the command line has ``ConfigError`` without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
