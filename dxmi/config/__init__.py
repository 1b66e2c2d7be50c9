"""What the user may write: every key of every YAML file, checked; plugins by name. ``__init__.pyi`` lists the names."""

import lazy_loader

# Lazy, so that the command line reads YAML and lists plugins without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
