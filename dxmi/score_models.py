"""What ``dxmi pretrain`` can train, a network with its loss and its files; and those with one score."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dxmi import score_matching
from dxmi.artefacts import save_energy
from dxmi.data import Source
from dxmi.errors import ConfigError, first_line, require
from dxmi.items import Batch, Draws, Images
from dxmi.score_network import EnergyScore, ScoreNetwork, save_score
from dxmi.scores import Score, asymmetry, differentiable, vector_jacobian
from dxmi.streams import Stream

if TYPE_CHECKING:
    from dxmi.pretrain import Pretrain

IMPLICIT = ("implicit", "hutchinson", "sliced")
ROWS = 50_000
"""most rows that are searched for what no data with a density have"""
EXACT = 256  # most entries of an event for which whole Jacobians are computed


class Model(NamedTuple):
    """A network to train."""

    network: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    """the network, as it is or distributed, and clean events (B,*S) -> a scalar per entry of an event"""
    save: Callable[[nn.Module, Path, dict[str, Any]], dict[str, float]]
    """writes the averaged network into a folder, told the resolved config, and gives the figures that go with it"""


def build(kind: Any, key: str, options: dict[str, Any]) -> Any:
    """``kind(**options)``; raises ConfigError naming ``key`` for an option it does not have or accept."""
    known = [p for p in inspect.signature(kind.__init__).parameters if p != "self"]
    for option in options:
        if option not in known:
            raise ConfigError(f"{key}.{option}: {kind.__name__} has no such option; it has {', '.join(known)}")
    try:
        return kind(**options)
    except (ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise ConfigError(f"{key}: {kind.__name__} refuses these options: {error}") from error


def score_model(run: Pretrain, source: Source) -> Model:
    """One score, minus an energy's gradient or a ``ScoreNetwork``'s output."""
    network = free_network(run, source, None) if run.energy is None else EnergyScore(run.energy)
    losses = score_losses(run, source)
    check_network(network, some(run, source, 8), run.objective, "score" if run.energy is None else "energy")

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return losses(network, batch.items).mean() / batch.items[0].numel()

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        if isinstance(network, EnergyScore):
            save_energy(network.energy, resolved["energy"], 0, out, source.event_shape)
            return {}
        return save_free(network, out, cleanest(run, source, run.sigma or 0.0))

    return Model(network, loss, save)


def check_network(network: nn.Module, x: Tensor, objective: str, key: str) -> None:
    """Let it read its sizes from x (B,*S); ``key`` is the option it comes from.

    Raises:
        ConfigError: it does not take them or has nothing to learn
    """
    try:
        x, s = differentiable(network, x)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{key}: it does not take {tuple(x.shape)}: {first_line(error)}") from error
    require(any(True for _ in network.parameters()), f"{key}: it has nothing to learn; take a network, such as mlp")
    bent = objective not in IMPLICIT or vector_jacobian(s, x, torch.randn_like(s)).any()
    cure = "take a smooth activation, such as silu"
    require(bool(bent), f"{key}: its score is constant between kinks, which objective {objective} cannot bend; {cure}")


def score_losses(run: Pretrain, source: Source) -> Callable[[Score, Tensor], Tensor]:
    """The objective's loss: a score and clean events (B,*S) -> (B,)."""
    if run.objective in IMPLICIT:
        check_continuous(run.objective, source)
    if run.objective == "explicit" and not isinstance(source, Draws):
        raise ConfigError("objective: explicit compares with a known score, so it needs data.density")

    def known(x: Tensor) -> Tensor:
        return -cast(Draws, source).energy.with_gradient(x.cpu())[1].to(x)  # it draws on the CPU too

    def v(x: Tensor) -> Tensor:
        return score_matching.probes(x, run.probes or "rademacher")

    return {
        "explicit": lambda score, x: score_matching.explicit(score(x), known(x)),
        "implicit": score_matching.implicit,
        "hutchinson": lambda score, x: score_matching.hutchinson(score, x, v(x)),
        "sliced": lambda score, x: score_matching.sliced(score, x, v(x)),
        "denoising": lambda score, x: score_matching.residual(score, x, torch.randn_like(x), run.sigma or 0.0),
    }[run.objective]


def check_continuous(objective: str, source: Source) -> None:
    """Raise ConfigError for data without a density, on which the implicit losses fall without end."""
    if isinstance(source, Draws):
        return
    why = (
        "pixels have 256 values"
        if isinstance(source, Images | Stream)
        else no_density(source[:ROWS].flatten(1).double())
    )
    if why is not None:
        cure = "take objective: denoising or multi_noise, which add noise"
        raise ConfigError(f"objective: {objective} needs data with a density, and {why}; {cure}")


def no_density(x: Tensor) -> str | None:
    """What shows that rows (N,D) of float32 numbers have none, or None if nothing does.

    That is: a value that comes more than twice and in more than a hundredth of the rows, all rows stored twice, whole
    numbers, one norm for all, coordinates that follow from the others by a linear map, no more rows than coordinates.
    """
    for i, values in enumerate(x.T):
        distinct, often = values.unique(return_counts=True)
        if 10 * len(distinct) < 9 * len(x) or often.max() > max(2, len(x) // 100):
            return f"coordinate {i} has {len(distinct)} distinct values in {len(x)} rows"
        if (distinct == distinct.round()).all():
            return f"coordinate {i} has whole numbers alone"
    norms, std = x.norm(dim=1), x.std(0, correction=0)
    rounding = torch.finfo(torch.float32).eps
    if norms.std(correction=0) < 1e-5 * std.norm() + rounding * norms.mean():
        return f"all rows have the norm {norms.mean():.4g}"
    z = (x - x.mean(0)) / std
    spread = torch.linalg.eigvalsh(z.T @ z / len(x))  # (D,) variances along the axes, where no unit of x matters
    exact = (rounding * (x.abs().amax(0) / std).max()) ** 2
    rank = int((spread > max(exact, x.shape[1] * torch.finfo(x.dtype).eps * spread[-1])).sum())
    return f"its {len(x)} rows fill {rank} of {x.shape[1]} dimensions" if rank < x.shape[1] else None


def free_network(run: Pretrain, source: Source, sigmas: list[float] | None) -> ScoreNetwork:
    """A ``ScoreNetwork`` for the data."""
    fixed = {"shape": list(source.event_shape), "sigmas": sigmas}
    for key in fixed:
        require(key not in (run.score or {}), f"score.{key}: it is read from the data and noise; leave it out")
    return cast(ScoreNetwork, build(ScoreNetwork, "score", {**(run.score or {}), **fixed}))


def save_free(network: nn.Module, out: Path, x: Tensor) -> dict[str, float]:
    """Write a free network, and its report at noised events x (B,*S)."""
    network = cast(ScoreNetwork, network.cpu())
    save_score(network, out)
    t = None if network.level is None else torch.zeros(len(x), dtype=torch.long)
    v = score_matching.probes(x, "rademacher") if x[0].numel() > EXACT else None
    return save_report(lambda y: network(y, t), x, v, out)


def save_report(score: Score, x: Tensor, v: Tensor | None, out: Path) -> dict[str, float]:
    """Write ``report.json``, how far a score is from a gradient at events x (B,*S); v as in ``asymmetry``."""
    found = {"asymmetry": asymmetry(score, x, v).item()}
    (out / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    return found


def cleanest(run: Pretrain, source: Source, sigma: float, most: int = 256) -> Tensor:
    """Events (B,*S) with noise of that std."""
    x = some(run, source, most)
    return x + sigma * torch.randn_like(x)


def some(run: Pretrain, source: Source, most: int = 5000) -> Tensor:
    """Events of the data, (N,*S) on the CPU: a batch of ``most``, or of all there are."""
    return source.batch(0, most, run.seed).items
