"""How well a learned sampler hits a known density: log-weights, and distances beside their floors."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor

from dxmi.api import ConfigError, Cost, DensitySamples, Energy, Evaluator, Sampler
from dxmi.drawing import Student
from dxmi.evaluation import measure
from dxmi.references import has_exact_samples, reference_samples
from dxmi.weights import Weighted, estimates, telling, weigh, weigh_exact

CHUNK = 4096  # paths at a time
FROM_EXACT = ("eubo", "log_z_forward")
LOG_WEIGHTS = ("elbo", "log_z", "ess", *FROM_EXACT, "log_z_exact")


class Halves(NamedTuple):
    """A known density's own samples, to compare others with, and as many more of them for the floor."""

    reference: DensitySamples
    other: Tensor
    """(n,*S)"""


def weighted(
    sampler: Sampler, cost: Cost, n: int, tau: float, generator: Generator
) -> tuple[Weighted, Weighted | None]:
    """N paths of the sampler and, where the density has exact samples, n paths from those, with their log-weights.

    All are of the sampler as it draws: what explores while it learns is off.
    """
    learning = sampler.training
    sampler.eval()
    sizes = [CHUNK] * (n // CHUNK) + [n % CHUNK] * (n % CHUNK > 0)
    forward = joined([weigh(sampler, cost, size, tau, generator) for size in sizes])
    exact: list[Weighted] = []
    if tau == 1 and has_exact_samples(cost.energy):  # the density's own samples are at temperature 1
        exact = [weigh_exact(sampler, cost, cost.energy.sample(k, generator), tau, generator) for k in sizes]
    sampler.train(learning)
    return forward, joined(exact) if exact else None


def joined(parts: list[Weighted]) -> Weighted:
    """Several sets of weighted samples as one."""
    return Weighted(*(torch.cat(part) for part in zip(*parts, strict=True)))


def has_log_weights(sampler: Sampler) -> bool:
    """Whether the sampler tells its steps and has a noising chain to compare them with."""
    try:
        telling(sampler)
    except ConfigError:
        return False
    return True


def log_weight_figures(sampler: Sampler, cost: Cost, n: int, seed: int) -> tuple[Weighted, dict[str, float]]:
    """N weighted samples and the estimates of MATH (4.8), with the density's own log Z where it is known.

    Raises:
        ConfigError: the sampler has no log-weights
    """
    forward, exact = weighted(sampler, cost, n, sampler.tau, Generator().manual_seed(seed))
    found = estimates(forward, exact)
    if cost.energy.log_z is not None and sampler.tau == 1:
        found["log_z_exact"] = cost.energy.log_z
    return forward, found


def drawn_figures(sampler: Sampler, cost: Cost, n: int, seed: int) -> tuple[Weighted, dict[str, float], list[str]]:
    """The same, but of a sampler without log-weights its samples alone and a note that says why.

    ``log_w`` is empty then.
    """
    try:
        telling(sampler)
    except ConfigError as error:
        draw = Student(sampler, cost.energy.event_shape or (), cost)
        samples = draw(n, sampler.steps, Generator().manual_seed(seed))
        return Weighted(samples, samples.new_empty(0)), {}, [f"no log-weights: {error}"]
    return *log_weight_figures(sampler, cost, n, seed), []


def require_log_weights(names: list[str], sampler: Sampler, energy: Energy) -> None:
    """Raise ConfigError if one of these figures of log-weights cannot be had, with the reason."""
    kind, warm = type(energy).__name__, sampler.tau != 1
    for name in names:
        try:
            telling(sampler)
        except ConfigError as error:
            raise ConfigError(f"--metrics: {name}: {error}") from error
        if name in FROM_EXACT and (warm or not has_exact_samples(energy)):
            why = f"these are at temperature 1, the sampler is at {sampler.tau}" if warm else f"{kind} has none"
            raise ConfigError(f"--metrics: {name} needs exact samples, and {why}")
        if name == "log_z_exact" and (warm or energy.log_z is None):
            why = f"at temperature 1 only, the sampler is at {sampler.tau}" if warm else "not"
            raise ConfigError(f"--metrics: log_z_exact: {kind} knows its log Z {why}")


def halves(energy: Energy, tau: float, n: int, seed: int) -> Halves:
    """N samples of the density and n others, or as many as there are stored.

    Raises:
        ConfigError: it has no samples, or the sampler draws at another temperature than they have
    """
    if tau != 1:
        raise ConfigError(f"evaluators: a density's own samples are at temperature 1, the sampler's at {tau}")
    both = reference_samples(energy, 2 * n, Generator().manual_seed(~seed))  # other noise than the paths of this seed
    k = len(both) // 2
    return Halves(DensitySamples(energy, both.samples[:k], both.exact), both.samples[k : 2 * k])


def density_floor(evaluators: list[Evaluator], parts: Halves) -> dict[str, Any]:
    """The row of the density's own samples against others of its own: what a perfect sampler gets."""
    found = measure(evaluators, parts.reference, lambda n: parts.other[:n])
    return {"name": "floor", "steps": None, "nfe": None, **found}


def student_row(
    drawn: Weighted, found: dict[str, float], steps: int, evaluators: list[Evaluator], parts: Halves | None
) -> dict[str, Any]:
    """The row of a learned sampler: its own figures, and its samples' distances from the reference."""
    distances = {} if parts is None else measure(evaluators, parts.reference, lambda n: drawn.samples[:n])["metrics"]
    row = {"name": "student", "steps": steps, "nfe": steps, "samples": len(drawn.samples)}
    return {**row, "metrics": {**found, **distances}}


def stamp(evaluators: list[Evaluator], energy: Energy, parts: Halves | None, seed: int) -> dict[str, Any]:
    """What the figures were made with and compared with."""
    made: dict[str, Any] = {"dxmi": version("dxmi"), "torch": torch.__version__, "energy": type(energy).__name__}
    if parts is not None:
        kind = "exact draws" if parts.reference.exact else "stored samples of long chains"
        made["evaluators"] = [evaluator.stamp() for evaluator in evaluators]
        made["reference"] = {"kind": kind, "size": len(parts.reference)}
    return made | {"seed": seed}


def show(rows: list[dict[str, Any]]) -> None:
    """The rows of ``evaluation.json`` on the screen: a line for each figure, the floor beside the student."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    out.add_column("")
    for row in rows:
        out.add_column(row["name"], justify="right", no_wrap=True)
    for name in dict.fromkeys(name for row in rows for name in row["metrics"]):
        out.add_row(name, *(cell(row["metrics"].get(name)) for row in rows))
    Console().print(out)
    paths, *less = (row["samples"] for row in rows)
    about = f"; distances of {less[0]} samples at most; floor: the density's own samples from others" if less else ""
    Console().print(f"{paths} paths{about}")


def cell(value: float | None) -> str:
    """A figure as text: whole numbers without decimals, nothing where there is none."""
    return "" if value is None else f"{value:.0f}" if float(value).is_integer() else f"{value:.3f}"
