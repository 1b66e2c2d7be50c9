"""Chains on a fixed density."""
