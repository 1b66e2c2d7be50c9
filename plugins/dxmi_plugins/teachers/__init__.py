"""Families of pretrained pipelines."""
