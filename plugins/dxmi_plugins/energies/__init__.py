"""Energies and value networks."""
