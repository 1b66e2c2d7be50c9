"""Configs of short runs whose value learns by contrast."""

from conftest import image_run


def contrast_run(teacher):
    """Four rounds on images with a warm start, score distillation and all: a second."""
    config = image_run(teacher)
    config["energy"] |= {"time": "noise"}
    config["sampler"]["scheduler"] |= {"nodes": "midpoints"}
    config["game"] = {
        "value": "contrast",
        "loss": "nce",
        "gamma": 0.0,
        "noise": 0.05,
        "r1": 0.05,
        "r2": 0.05,
        "penalties": "differences",
        "energy_steps": 2,
        "warmup": 1,
        "distil": 0.5,
        "warm_start": {"paths": 12, "steps": 6, "rounds": 4, "keep": 2.0},
    }
    return config


def policy_run():
    """Four rounds on vectors, from random weights."""
    return {
        "data": {"density": {"name": "gaussian_mixture", "preset": "eight_gaussians"}, "batch_size": 32},
        "energy": {"name": "mlp", "width": 16, "time": "noise"},
        "sampler": {"name": "policy", "shape": [2], "steps": 3, "first": 2.0, "width": 16},
        "game": {"value": "contrast", "loss": "relativistic", "gamma": 0.0, "warmup": 1},
        "steps": 4,
        "paths": 200,
        "every": {"log": 1, "samples": 4, "checkpoint": 2},
        "tracker": None,
    }
