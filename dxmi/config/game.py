"""What the game weighs (MATH 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dxmi.api.errors import require


@dataclass(kw_only=True)
class GameConfig:
    """The weights of the game's terms (MATH 3).

    They stand below ``game`` in files of ``dxmi train``.

    Args:
        tau1: weight of the policy's conditional entropy
        tau2: weight of the velocity cost
        loss: what the energy descends: gcd (contrastive divergence, and with a chain maximum likelihood), or the
            losses of a classifier of data and samples: nce (logistic), n2ce (logistic, between nce and gcd), hinge
        magnitude: how many times as many samples n2ce pretends to see; 1 is nce, and 100 or more near gcd
        gamma: weight of the squared energies in the energy loss
        r1: weight of the mean squared norm of the energy's gradient at data
        r2: the same at samples
        avr: averaging factor of the adaptive velocity, in [0, 1]; 1 keeps its first values
        time_cost: weight of the time cost that replaces the running cost in the value's target; null keeps the latter
        noise: std of the Gaussian noise on the data and samples that the energy compares, in units of the data; it
            hides what no sampler can imitate, such as the data's grey levels, and what tells training images by heart
        warmup: rounds at the start in which energy and value learn and the sampler stays as it is, or learns from its
            teacher alone, with imitate
        imitate: weight of the distance of the sampler's steps from its teacher's, at states of rollouts (Meng et al.
            2023, arXiv:2210.03142); it is how a student learns its teacher's guidance
        sweep: whether value and policy learn from all T transitions of a rollout in turn, as in the paper, with T
            optimiser steps a round each; otherwise from one random transition of each chain, with one step
        value_steps: how many times the value learns from a round's rollout, with new targets and transitions each time
        noised: share of the states that value and policy learn at that are data with the noise of the sampler's
            noising chain, in place of states of rollouts; it keeps modes that rollouts no longer reach
        explore: factor on the noise of a value-guided sampler's rollouts, which the value learns along (kappa, MATH 4);
            their successors are redrawn without it
        trace: lambda of TD(lambda) along a value-guided sampler's rollouts; 0 is TD(0) on redrawn successors
        target: decay of the moving average of the value that targets and drifts are made of while the game goes on;
            0 makes them of the value itself
        ceiling: largest cost to go in a target of a value-guided sampler's value, for energies with poles; null: none
        start: where rollouts start: noise (of a chain: short runs), data (of a chain: contrastive divergence; of a
            value-guided sampler: data that its noising chain has carried to x_0) or chains (of a chain alone:
            persistent contrastive divergence). What is drawn in the end starts from the sampler's own noise all the
            same; a value-guided sampler that starts from data learns neither its own start nor values there, so then
            no samples are drawn, and the energy is what is learned
        chains: number of persistent chains of each process
        reinit: share of the persistent chains used in a round that start again from noise (Du and Mordatch 2019)

    Raises:
        ConfigError: a value is out of range, or two keys exclude each other
    """

    tau1: float = 0.1
    tau2: float = 0.01
    loss: Literal["gcd", "nce", "n2ce", "hinge"] = "gcd"
    magnitude: float | None = None
    gamma: float = 1.0
    r1: float = 0.0
    r2: float = 0.0
    avr: float = 0.99
    time_cost: float | None = 1.0
    noise: float = 0.0
    warmup: int = 50
    imitate: float = 0.0
    sweep: bool = False
    value_steps: int = 1
    noised: float = 0.0
    explore: float = 1.0
    trace: float = 0.0
    target: float = 0.0
    ceiling: float | None = None
    start: Literal["noise", "data", "chains"] = "noise"
    chains: int = 1000
    reinit: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.avr <= 1, "game.avr", f"{self.avr} is not between 0 and 1")
        for key in ("chains", "value_steps"):
            require(getattr(self, key) >= 1, f"game.{key}", f"{getattr(self, key)} is not positive")
        require(0 <= self.noised <= 1, "game.noised", f"{self.noised} is no share")
        require(
            self.noised == 0 or self.trace == 0, "game.noised", "TD(lambda) follows whole rollouts", "leave one at 0"
        )
        require(self.explore > 0, "game.explore", f"{self.explore} is not positive")
        require(0 <= self.trace <= 1, "game.trace", f"{self.trace} is not between 0 and 1")
        require(0 <= self.target < 1, "game.target", f"{self.target} is not in [0, 1)")
        require(
            self.trace == 0 or self.explore == 1,
            "game.explore",
            "TD(lambda) follows the rollout's own noise",
            "leave explore at 1, or trace at 0",
        )
        noisier = self.loss == "n2ce"
        require(noisier or self.magnitude is None, "game.magnitude", "it is for loss: n2ce", "leave it out")
        require(not noisier or self.magnitude is not None, "game.magnitude", "n2ce needs one, such as 100")
        require(
            self.magnitude is None or 1 <= self.magnitude < math.inf,
            "game.magnitude",
            f"{self.magnitude} is not 1 or more",
        )
        require(0 <= self.reinit < 1, "game.reinit", f"{self.reinit} is not in [0, 1)")
        require(self.reinit == 0 or self.start == "chains", "game.reinit", "it is for start: chains", "leave it out")
        for key in ("tau1", "tau2", "gamma", "r1", "r2", "noise", "warmup", "imitate"):
            require(getattr(self, key) >= 0, f"game.{key}", f"{getattr(self, key)} is negative")
