"""What the game weighs (MATH 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dxmi.api.errors import require


@dataclass(kw_only=True)
class WarmStartConfig:
    """What the sampler learns before the game: the teacher's own paths in many steps (MATH 3.8).

    The keys stand below ``game.warm_start`` in files of ``dxmi train``.

    Args:
        paths: how many paths each process draws, once
        steps: about how many times the network is called along each
        rounds: optimiser steps on batches of them
        rate: largest learning rate, of a cycle that rises and falls once
        keep: with contrast, weight of the same loss beside the game, at one transition a round; it holds what the paths
            have taught and data cannot show from one batch to the next, such as the shares of classes

    Raises:
        ConfigError: a value is out of range
    """

    paths: int = 3072
    steps: int = 12
    rounds: int = 500
    rate: float = 5e-4
    keep: float = 0.0

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            require(value > 0 or key == "keep", f"game.warm_start.{key}", f"{value} is not positive")
        require(self.keep >= 0, "game.warm_start.keep", f"{self.keep} is negative")


@dataclass(kw_only=True)
class GameConfig:
    """The weights of the game's terms (MATH 3).

    They stand below ``game`` in files of ``dxmi train``.

    Args:
        tau1: weight of the policy's conditional entropy
        tau2: weight of the velocity cost
        value: how values before the end are learned: td (temporal differences, MATH 3.3) or contrast (MATH 3.7: one
            energy that is told the noise level learns at every node, data noised to it against the rollout's states)
        loss: what the energy descends: gcd (contrastive divergence, and with a chain maximum likelihood), or the
            losses of a classifier of data and samples: nce (logistic), n2ce (logistic, between nce and gcd), hinge,
            relativistic (logistic, of a datum against a sample)
        magnitude: how many times as many samples n2ce pretends to see; 1 is nce, and 100 or more near gcd
        gamma: weight of the squared energies in the energy loss
        r1: weight of the mean squared norm of the energy's gradient at data
        r2: the same at samples
        penalties: how r1 and r2 have that norm: exact (a second derivative of the network), or differences (of energies
            at states a small random step apart, which any network and any sharding can do)
        energy_steps: how many times the energy learns in a round, on the same data and samples with new noise; r1 and
            r2 are in the first of them alone, as many times as heavy
        renoise: with contrast, the share of states that are carried on to a random higher noise level first
        node_weights: with contrast, how much the sampler minds each node: gain (less where its network's output moves
            the state more, MATH 3.9) or equal
        distil: with contrast, weight of score distillation at every node: the gradient that a network which learns
            what samples look like has against the teacher's (DMD2, arXiv:2405.14867)
        warm_start: what the sampler learns before the game; null for nothing
        avr: averaging factor of the adaptive velocity, in [0, 1]; 1 keeps its first values
        time_cost: with td, weight of the time cost that replaces the running cost in the value's target; null keeps the
            latter
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
    value: Literal["td", "contrast"] = "td"
    loss: Literal["gcd", "nce", "n2ce", "hinge", "relativistic"] = "gcd"
    magnitude: float | None = None
    gamma: float = 1.0
    r1: float = 0.0
    r2: float = 0.0
    penalties: Literal["exact", "differences"] = "exact"
    energy_steps: int = 1
    renoise: float = 0.5
    node_weights: Literal["gain", "equal"] = "gain"
    distil: float = 0.0
    warm_start: WarmStartConfig | None = None
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
        for key in ("chains", "value_steps", "energy_steps"):
            require(getattr(self, key) >= 1, f"game.{key}", f"{getattr(self, key)} is not positive")
        for key in ("noised", "renoise"):
            require(0 <= getattr(self, key) <= 1, f"game.{key}", f"{getattr(self, key)} is no share")
        contrast, idle = self.value == "contrast", "it is for value: td"
        require(self.distil == 0 or contrast, "game.distil", "it is for value: contrast", "leave it out")
        for key, usual in (("renoise", 0.5), ("node_weights", "gain")):
            own = getattr(self, key) == usual
            require(own or contrast, f"game.{key}", "it is for value: contrast", "leave it out")
        kept = self.warm_start is not None and self.warm_start.keep > 0
        require(contrast or not kept, "game.warm_start.keep", "it is for value: contrast", "leave it out")
        require(self.value_steps == 1 or not contrast, "game.value_steps", idle, "set energy_steps")
        require(not self.sweep or not contrast, "game.sweep", "contrast learns from all transitions", "leave it out")
        require(self.noised == 0 or not contrast, "game.noised", idle, "leave it out")
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
        for key in ("tau1", "tau2", "gamma", "r1", "r2", "noise", "warmup", "imitate", "distil"):
            require(getattr(self, key) >= 0, f"game.{key}", f"{getattr(self, key)} is negative")
