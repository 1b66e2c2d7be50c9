"""How the command line calls the parameters of the library: the one table from keys of messages to flags."""

from __future__ import annotations

from dxmi.api.errors import ConfigError

SAMPLES = {"n": "-n", "seed": "--seed", "steps": "--steps", "prompts": "--prompt", "out": "--out"}
FLAGS: dict[str, dict[str, str]] = {
    "train": {"out": "--out", "resume": "--resume"},
    "pretrain": {"out": "--out"},
    "sample": SAMPLES,
    "evaluate": SAMPLES
    | {
        "pipeline": "source",
        "source": "source",
        "seeds": "--seeds",
        "schedulers": "--scheduler",
        "batch_size": "--batch-size",
        "reference": "--reference",
        "floor": "--floor",
        "steps_like": "--steps-like",
        "metrics": "--metrics",
        "evaluator": "--evaluator",
        "extractor": "--extractor",
        "column": "--column",
        "label": "--label",
        "compare": "--compare",
    },
    "score": {"column": "--column", "labels": "--labels", "classes": "--classes", "json": "--json", "data": "images"},
    "inspect": {"json": "--json", "config": "--config"},
    "export": {"out": "--out", "mode": "--mode"},
    "push": {"repo": "repo-id"},
}


def spoken(error: ConfigError, command: str) -> ConfigError:
    """The error by the names that ``command`` has for its parameters; other keys, as of a config, and places stay.

    Options of an option follow it: ``reference.size`` is ``--reference.size``.
    """
    flags = FLAGS.get(command, {})
    head, *rest = error.key.split(".")
    if error.is_place or head not in flags:
        return error
    if rest and flags[head] == "source":  # the options of what stands first are given by a flag
        return error.named(".".join(["--source", *rest]))
    return error.named(".".join([flags[head], *rest]))
