"""Saved diffusers pipelines: loading by one set of rules, calling, drawing."""
