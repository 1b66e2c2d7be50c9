"""``dxmi push``: what would go to the hub and, with ``--yes``, sending it."""

from __future__ import annotations

import argparse

PREVIEW = 12
"""lines of the card that are shown"""


def run_push(options: argparse.Namespace, overrides: list[str]) -> None:
    """``dxmi push``."""
    from rich.filesize import decimal

    from dxmi import push
    from dxmi.runs.push import product

    ready = product(options.source, options.repo)
    doing, kind = "uploading" if options.yes else "would upload", "private" if options.private else "public"
    print(f"{doing} to {options.repo} ({kind}):")
    for path in ready.files:
        print(f"  {decimal((ready.folder / path).stat().st_size):>12}  {path.as_posix()}")
    print("the card begins:")
    for line in ready.card.splitlines()[:PREVIEW]:
        print(f"  {line}")
    print(
        push(options.source, options.repo, private=options.private)
        if options.yes
        else "nothing was sent; give --yes to send it"
    )
