"""``dxmi score``: energies on the screen or in a file, and how well they rank labelled items."""

from __future__ import annotations

import argparse
import json

from dxmi.api.errors import require
from dxmi.cli.config_options import quiet


def run_score(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi score``."""
    require(not options.classes or options.labels, "classes", "AUROC needs labels", "give --labels too")
    folder = options.json and options.json.parent
    require(folder is None or folder.is_dir(), "json", f"there is no folder {folder}")
    quiet()
    from dxmi import score
    from dxmi.evaluation import score_table
    from dxmi.screen import Screen

    scores = score(
        options.source, options.images, column=options.column, labels=options.labels, classes=options.classes
    )
    energies = scores.energies.tolist()
    if options.json:
        whole = {"energies": energies, "metrics": scores.metrics, "evaluator": scores.evaluator}
        options.json.write_text(json.dumps(whole if options.labels else energies) + "\n")
        print(options.json)
    else:
        print("\n".join(f"{energy:.6g}" for energy in energies))
    if options.labels:  # on stderr: what is printed stays a list of energies
        Screen().console.print(score_table(scores.metrics))
