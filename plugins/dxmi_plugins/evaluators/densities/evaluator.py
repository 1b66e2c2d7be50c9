"""Samples of a known density against its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dxmi.api import ConfigError, DensitySamples, Energy, Particles
from dxmi.api.errors import check_some

from .alignment import EXACT, aligned_costs
from .distances import DIRECTIONS, mode_error, modes_found, side_error, sliced_w2, sorted_w2, squared_distances, w2

MOST = 2000  # samples in an exact transport; its time grows with their cube
FEW = 200  # the same where every pair is a search


@runtime_checkable
class Multimodal(Protocol):
    """A density that knows where its modes are."""

    modes: Tensor
    """(K,*S)"""


class Densities:
    """Distances of samples from a known density's own: 0 is best, but for ``modes_found``.

    sliced_w2, w2 and energy_w2 are 2-Wasserstein distances: over random directions, of the samples with squared
    Euclidean cost, of their energies. mode_error is the total variation between the shares of samples that are nearest
    to each mode, modes_found the number of modes with at least half their share; both need a density with ``modes``.
    side_error is the largest difference over coordinates between shares of positive values. aligned_w2 is w2 where the
    cost of a pair is least over rotations, reflections, translations and orders of the particles: exact up to 5
    particles, else an upper bound from a search. Plain w2 cannot rank good samplers of particles.

    Args:
        metrics: some of those; null takes all that fit the density
        samples: number of samples, and of reference samples; at most as many as the reference has. w2 takes the first
            2000 of them
        aligned: number of them for aligned_w2; null takes 2000 of up to 5 particles in the plane, else 200

    Raises:
        ConfigError: a metric is unknown, or a number of samples is less than 2
    """

    METRICS = ("sliced_w2", "w2", "energy_w2", "mode_error", "modes_found", "side_error", "aligned_w2")

    def __init__(self, metrics: list[str] | None = None, samples: int = 2000, aligned: int | None = None):
        check_some("metrics", metrics, self.METRICS)
        for name, number in {"samples": samples, "aligned": aligned}.items():
            if number is not None and number < 2:
                raise ConfigError(name, f"{number} are too few for a distance", "give at least 2")
        self.metrics, self.samples, self.aligned = metrics, samples, aligned

    def __call__(self, draw: Callable[[int], Tensor], reference: Dataset[Tensor]) -> dict[str, float]:
        """``draw(n) -> (n,*S)``; the reference is a ``DensitySamples``.

        Raises:
            ConfigError: the reference is none, or a metric does not fit its density
            FloatingPointError: a sample or its energy is not finite
        """
        if not isinstance(reference, DensitySamples):
            raise ConfigError("evaluators", "densities compares samples of a known density", "for images take fidelity")
        y = reference.samples[: self.samples]
        x = draw(len(y)).to(y)
        if x.shape != y.shape:
            raise ConfigError("samples", f"they are {tuple(x.shape)}, the reference {tuple(y.shape)}")
        fitting = self._fitting(x, y, reference.energy)
        for name in set(self.metrics or ()) - set(fitting):
            needs = "particles that the energy tells" if name == "aligned_w2" else "modes"
            raise ConfigError("metrics", f"{name} needs {needs}, and {type(reference.energy).__name__} has none")
        wanted = fitting if self.metrics is None else self.metrics
        return {name: float(fitting[name]()) for name in wanted}

    @torch.no_grad()
    def _fitting(self, x: Tensor, y: Tensor, energy: Energy) -> dict[str, Callable[[], float]]:
        """What computes each metric that fits, of samples x and reference y (n,*S)."""
        e, due = (energy(part).double().cpu() for part in (x, y))
        p, q = (part.flatten(1).double().cpu() for part in (x, y))
        if not (p.isfinite().all() and e.isfinite().all()):
            raise FloatingPointError("some samples or their energies are not finite numbers, so they have no distance")
        fitting: dict[str, Callable[[], float]] = {
            "sliced_w2": lambda: sliced_w2(p, q),
            "w2": lambda: w2(squared_distances(p[:MOST], q[:MOST])),
            "energy_w2": lambda: sorted_w2(e, due),
            "side_error": lambda: side_error(p, q),
        }
        if isinstance(energy, Multimodal):
            centres = energy.modes.flatten(1).double().cpu()
            fitting["mode_error"] = lambda: mode_error(p, q, centres)
            fitting["modes_found"] = lambda: modes_found(p, q, centres)
        if isinstance(energy, Particles):
            fitting["aligned_w2"] = self._alignment(energy.positions(x), energy.positions(y))
            if self.metrics is None:
                del fitting["side_error"]  # orientation is chance
        return fitting

    def _alignment(self, x: Tensor, y: Tensor) -> Callable[[], float]:
        plane = x.shape[1] <= EXACT and x.shape[2] <= 2
        n = self.aligned or (MOST if plane else FEW)
        return lambda: w2(aligned_costs(x[:n].cpu(), y[:n].cpu()))

    def stamp(self) -> dict[str, Any]:
        """Implementation, version of the solver, numbers of samples and directions."""
        return {
            "implementation": "dxmi densities",
            "solver": f"scipy {version('scipy')} linear_sum_assignment",
            "samples": self.samples,
            "w2_samples": MOST,
            "aligned_samples": self.aligned or f"{MOST} of up to {EXACT} particles in the plane, else {FEW}",
            "directions": DIRECTIONS,
        }
