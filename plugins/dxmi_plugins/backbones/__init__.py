"""Frozen networks that know photographs: judges (``evaluators``) and critics (``energies``) look through their eyes."""
