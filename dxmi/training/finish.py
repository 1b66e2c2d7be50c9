"""The end of a run on data: products, evaluation beside the rivals, report."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator
from torch.utils.data import Dataset

from dxmi.api import Draw, GaussianSampler
from dxmi.chains import first_samples, save_before_after, save_learned
from dxmi.data import Items, Stream
from dxmi.evaluation import Candidate, card_figures, compare, draw_candidate, show
from dxmi.runs.energy import save_energy
from dxmi.runs.finished import can_be_drawn, runs_on_end
from dxmi.runs.model_card import model_card
from dxmi.training.finish_density import finish_density
from dxmi.training.session import Session


def finish(session: Session, floor: dict[str, Any] | None) -> None:
    """Write the products, evaluate the averaged sampler beside its rivals, report."""
    if session.data is None:
        finish_density(session, floor)
        return
    rivals = session.run.sampler.rivals()
    if session.main:
        save_products(session)
        picture_before_after(session, rivals)
        save_samples(session)
    evaluation = None if floor is None else figures(session, rivals, floor)
    if session.main:
        report(session, evaluation)
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()  # closes trackers and the process group


def save_products(session: Session) -> None:
    """pipeline/ or sampler/, energy/ and, where there is one, value/."""
    sampler, config = session.run.sampler, session.config.resolved
    if isinstance(sampler, GaussianSampler):  # a fixed chain has learned nothing
        session.average().save_pretrained(session.out / ("pipeline" if sampler.pipeline else "sampler"))
    for name, player in (("energy", session.run.energy), ("value", session.averaged_value())):
        if player is not None:
            save_energy(player, config[name], player.final_time(sampler.steps), session.out / name, session.shape)


def save_samples(session: Session) -> None:
    """samples.safetensors of a run on vectors, ``paths`` of them, and in two dimensions picture.png, if it can draw."""
    run, out = session.run, session.out
    if session.data is None or len(session.shape) != 1 or not can_be_drawn(run):
        return
    n, generator = run.paths, Generator().manual_seed(run.seed)
    samples = session.student(runs_on_end(run))(n, run.sampler.steps, generator).cpu().contiguous()
    save_file({"samples": samples}, out / "samples.safetensors")
    if session.shape == (2,):
        place = session.accelerator.device
        data = session.data.batch(0, n, run.seed).items
        end = torch.full((1,), run.energy.final_time(run.sampler.steps), device=place)
        save_learned(lambda x: run.energy(x.to(place), end.expand(len(x))), samples, data, out / "picture.png")


def figures(session: Session, rivals: dict[str, Draw], floor: dict[str, Any]) -> dict[str, Any]:
    """The content of evaluation.json; every process takes part."""
    run, data = session.run, session.data
    stored = data.reference() if isinstance(data, Items | Stream) else None
    reference: Dataset[Any] = session.halves().reference if stored is None else stored
    about = {"kind": "exact draws", "size": run.paths} if stored is None else stored.stamp()
    rows = candidates(session, rivals)
    evaluation = compare(rows, run.evaluators, reference, about, run.seed, session.screen.note)
    return {**evaluation, "rows": [*evaluation["rows"], floor]}


def candidates(session: Session, rivals: dict[str, Draw]) -> list[Candidate]:
    """The rows of the table: the student and its rivals, or a chain as long as in training and a longer one."""
    run, own = session.run, session.run.sampler.steps
    made = {"prompts": session.config.resolved["sampler"].get("prompts") or []}

    def row(name: str, steps: int, draw: Draw, calls: int = 1) -> Candidate:
        at_once = run.draw_batch
        return draw_candidate(draw, name, steps, steps * calls, session.accelerator, made=made, batch_size=at_once)

    if not isinstance(run.sampler, GaussianSampler):
        times = run.long_chain if run.sampler.stationary else None
        long = [] if times is None else [row("long chain", own * times, session.student(times))]
        return [row("chain", own, session.student()), *long]
    rows = [row("student", own, session.student())]
    for steps in sorted({own, *run.compare_steps}):
        rows += [row(name, steps, draw, run.sampler.rival_calls) for name, draw in rivals.items()]
    return rows


def report(session: Session, evaluation: dict[str, Any] | None) -> None:
    """The model card, evaluation.json and the table on the screen."""
    if (session.out / "pipeline").exists():
        model_card(
            session.out / "pipeline", session.config.resolved, session.run.sampler.steps, card_figures(evaluation)
        )
    if evaluation is not None:
        (session.out / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
        show(evaluation["rows"])


def picture_before_after(session: Session, rivals: dict[str, Draw]) -> None:
    """before_after.png: the first rival (the teacher) above the student, in as many steps from the same noise."""
    if not rivals or len(session.shape) != 3:
        return
    (name, before), after = next(iter(rivals.items())), session.student()
    steps = session.run.sampler.steps
    first, second = first_samples((before, after), 32, steps, seed=1, size=session.run.draw_batch)
    titles = (f"{name}, {steps} steps", f"student, {steps} steps, same noise")
    save_before_after(first, second, titles, session.out / "before_after.png")
