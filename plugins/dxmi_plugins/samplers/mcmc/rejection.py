"""Rejection sampling under a normal envelope (TOOLBOX row 4; von Neumann 1951)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from dxmi.api import ConfigError, CostToGo

from .chain import Chain, chains_last, positive, sum_square, uniform


class Rejection(Chain):
    """Proposals of ``q = N(0, scale^2 I)``, accepted with probability ``exp(-E(x)/tau)/(C*q(x))``, C = exp(log_bound).

    Exact independent samples in one step, T = 1, wherever ``exp(-E/tau) <= C*q``; the mean acceptance is Z/C. The step
    proposes for all B chains at once until B proposals are accepted; what x_0 is does not matter.

    Args:
        scale: std of the proposals
        log_bound: log C
        tau: temperature
        most: proposals for each sample after which it gives up

    Raises:
        ConfigError: an option is out of its range, or, at the step, a proposal shows that ``log_bound`` is too low, or
            ``most`` proposals for each sample do not suffice
    """

    independent = False
    stationary = False

    def __init__(self, scale: float, log_bound: float, tau: float = 1.0, most: int = 100_000):
        positive(scale=scale, most=most)
        super().__init__(1, scale, tau)
        if not math.isfinite(log_bound):
            raise ConfigError("log_bound", f"{log_bound} is not finite")
        self.scale, self.log_bound, self.most = scale, log_bound, most
        self.proposals = self.accepted = 0

    @torch.no_grad()
    def move(self, x: Tensor, k: int, cost_to_go: CostToGo, generator: Generator | None = None) -> Tensor:
        """X (B,*S) -> B independent samples (B,*S)."""
        self.proposals = self.accepted = 0
        found: list[Tensor] = []
        while self.accepted < len(x):
            if self.proposals >= self.most * len(x):
                rate = f"{self.accepted} of {self.proposals} proposals were accepted"
                raise ConfigError("most", f"{rate}", "lower log_bound, fit scale to the energy, or allow more")
            y = chains_last(tuple(x.shape), x, generator).mul_(self.scale)
            log_probability = self.log_acceptance(y, cost_to_go)
            found.append(y[uniform(len(y), y, generator).log_() < log_probability])  # never where it is not a number
            self.proposals += len(y)
            self.accepted += len(found[-1])
        return torch.cat(found)[: len(x)]

    def log_acceptance(self, y: Tensor, cost_to_go: CostToGo) -> Tensor:
        """``-E(y)/tau - log C - log q(y)``, (B,). Raises ConfigError where it is positive: C*q is no envelope."""
        dimensions = y[0].numel()
        log_q = -sum_square(y) / (2 * self.scale**2) - dimensions / 2 * math.log(2 * math.pi * self.scale**2)
        found = -cost_to_go(y, self.end(y)) / self.tau - self.log_bound - log_q
        if bool((found > 0).any()):
            worst = int(found.nan_to_num(-math.inf).argmax())
            where = ", ".join(f"{v:.4g}" for v in y[worst].flatten()[:8].tolist()) + (", ..." if dimensions > 8 else "")
            by = f"{found[worst].item():.4g}"
            over = f"exp(-E/tau) is exp({by}) times the bound at x = ({where})"
            raise ConfigError("log_bound", f"{self.log_bound} is too low: {over}", f"raise it by more than {by}")
        return found

    def report(self) -> dict[str, Any]:
        """The share of the proposals accepted, an estimate of Z/C, and their number."""
        if not self.proposals:
            return {}
        return {"acceptance_rate": self.accepted / self.proposals, "proposals": self.proposals}
