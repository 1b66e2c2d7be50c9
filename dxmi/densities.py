"""Runs on a known density: their log-weights while they learn, their products, and drawing from them again."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import Generator, Tensor

from dxmi import artefacts
from dxmi.api import ConfigError, Cost, Energy, Sampler
from dxmi.chains import Drawn, event_shape
from dxmi.config import Checked, Run
from dxmi.dialect import read
from dxmi.evaluate import student
from dxmi.pictures import save_picture
from dxmi.weights import Weighted, estimates, telling, weigh, weigh_exact

if TYPE_CHECKING:
    from dxmi.train import Session

CHUNK = 4096  # paths at a time, whose every state is kept


def weighted(
    sampler: Sampler, cost: Cost, n: int, tau: float, generator: Generator
) -> tuple[Weighted, Weighted | None]:
    """N paths of the sampler and, where the density has exact samples, n paths from those, with their log-weights."""
    sampler.eval()
    sizes = [CHUNK] * (n // CHUNK) + [n % CHUNK] * (n % CHUNK > 0)
    forward = joined([weigh(sampler, cost, size, tau, generator) for size in sizes])
    exact: list[Weighted] = []
    if tau == 1:  # the density's own samples are at temperature 1
        with suppress(NotImplementedError):
            exact = [weigh_exact(sampler, cost, cost.energy.sample(k, generator), tau, generator) for k in sizes]
    sampler.train()
    return forward, joined(exact) if exact else None


def joined(parts: list[Weighted]) -> Weighted:
    """Several sets of weighted samples as one."""
    return Weighted(*(torch.cat(part) for part in zip(*parts, strict=True)))


def metrics(session: Session, n: int, seed: int) -> tuple[Weighted, dict[str, float]]:
    """Weighted samples of a run's averaged sampler and the estimates of MATH (4.8)."""
    run, sampler = session.run, session.average()
    cost = Cost(run.energy, session.averaged_value(), sampler.steps)
    forward, exact = weighted(sampler, cost, n, sampler.tau, Generator().manual_seed(seed))
    return forward, estimates(forward, exact)


def finish_density(session: Session) -> None:
    """Write sampler/, value/, samples.safetensors, picture.png and evaluation.json of a run on a known density."""
    run, out = session.run, session.out
    if session.main:
        session.average().save_pretrained(out / "sampler")
        value = session.averaged_value()
        if value is not None:
            artefacts.save_energy(value, session.config.resolved["value"], run.sampler.steps, out / "value")
        if session.value_guided:
            forward, found = metrics(session, run.paths, run.seed)
            report(session, forward, found)
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()


def report(session: Session, drawn: Weighted, found: dict[str, float]) -> None:
    """Samples, picture, figures, and the figures on the screen."""
    out, energy = session.out, session.run.energy
    save_file({"samples": drawn.samples.contiguous().cpu(), "log_w": drawn.log_w.cpu()}, out / "samples.safetensors")
    with torch.no_grad():
        energies = energy(drawn.samples)
    save_picture(
        energy,
        Drawn(drawn.samples, energies, drawn.samples.new_empty(0), drawn.samples.new_empty(0), {}),
        out / "picture.png",
    )
    values: dict[str, Any] = dict(found)
    if energy.log_z is not None and session.run.sampler.tau == 1:
        values["log_z_exact"] = energy.log_z
    steps = session.run.sampler.steps
    row = {"name": "student", "steps": steps, "nfe": steps, "samples": len(drawn.log_w), "metrics": values}
    (out / "evaluation.json").write_text(json.dumps({"rows": [row], "stamp": {"seed": session.run.seed}}, indent=2))
    Console().print(", ".join(f"{name} {value:.3f}" for name, value in values.items()))


def load_density_run(folder: Path) -> tuple[Energy, Sampler, Cost]:
    """The density, the learned sampler and the cost to go of a run.

    Raises:
        ConfigError: the folder holds no finished run on a known density
    """
    try:
        run = Checked(Run, read(folder / "run.yaml")).build()
        load_model(run.sampler, str(folder / "sampler" / "model.safetensors"))
        if run.value is not None:
            run.value.load_state_dict(load_file(folder / "value" / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: holds no finished run on a known density") from error
    return run.energy, run.sampler.eval(), Cost(run.energy, run.value, run.sampler.steps)


def sample_density_run(folder: Path, n: int, seed: int) -> dict[str, Tensor]:
    """N samples of a run on a known density, with log-weights where its steps have some.

    Raises:
        ConfigError: as ``load_density_run``
    """
    energy, sampler, cost = load_density_run(folder)
    generator = Generator().manual_seed(seed)
    try:
        telling(sampler)
    except ConfigError:
        return {"samples": student(sampler, event_shape(energy), cost)(n, sampler.steps, generator).contiguous()}
    drawn = weigh(sampler, cost, n, sampler.tau, generator)
    return {"samples": drawn.samples.contiguous(), "log_w": drawn.log_w}
