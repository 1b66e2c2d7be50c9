"""The end of a run: products, evaluation beside the rivals, report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch import Generator

from dxmi import artefacts
from dxmi.api import Draw, GaussianSampler
from dxmi.densities import finish_density
from dxmi.evaluate import Contender, evaluate, stamp

if TYPE_CHECKING:
    from dxmi.train import Session


def finish(session: Session, floor: dict[str, Any] | None) -> None:
    """Write the products, evaluate the averaged sampler beside its rivals, report."""
    if session.images is None:
        finish_density(session, floor)
        return
    rivals = session.run.sampler.rivals()
    if session.main:
        save_products(session)
        save_before_after(session, rivals)
    evaluation = None if floor is None else compare(session, rivals, floor)
    if session.main:
        report(session, evaluation)
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()  # closes trackers and the process group


def save_products(session: Session) -> None:
    """pipeline/, energy/ and, where there is one, value/."""
    if isinstance(session.run.sampler, GaussianSampler):  # a fixed chain has learned nothing
        session.average().save_pretrained(session.out / "pipeline")
    for name, player in (("energy", session.run.energy), ("value", session.run.value)):
        if player is not None:
            artefacts.save_energy(player, session.config.resolved[name], session.run.sampler.steps, session.out / name)


def compare(session: Session, rivals: dict[str, Draw], floor: dict[str, Any]) -> dict[str, Any]:
    """The content of evaluation.json; every process takes part."""
    assert session.images is not None
    run, own = session.run, session.run.sampler.steps
    contenders = [Contender("student", own, session.student())]
    for steps in sorted({own, *run.compare_steps}):
        contenders += [Contender(name, steps, draw) for name, draw in rivals.items()]
    rows = evaluate(contenders, run.evaluators, session.images, run.seed, session.accelerator, session.tell)
    return {"rows": [*rows, floor], "stamp": stamp(run.evaluators, session.images, run.seed)}


def report(session: Session, evaluation: dict[str, Any] | None) -> None:
    """The model card, evaluation.json and the table on the screen."""
    if (session.out / "pipeline").exists():
        artefacts.model_card(session.out / "pipeline", session.config.resolved, session.run.sampler.steps, evaluation)
    if evaluation is not None:
        (session.out / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
        Console().print(artefacts.table(evaluation["rows"]))


def save_before_after(session: Session, rivals: dict[str, Draw]) -> None:
    """before_after.png: the first rival (the teacher) above the student, in as many steps from the same noise."""
    if not rivals or len(session.shape) != 3:
        return
    (name, before), after = next(iter(rivals.items())), session.student()
    steps = session.run.sampler.steps
    first, second = (draw(32, steps, Generator().manual_seed(1)).cpu() for draw in (before, after))
    titles = (f"{name}, {steps} steps", f"student, {steps} steps, same noise")
    artefacts.save_before_after(first, second, titles, session.out / "before_after.png")
