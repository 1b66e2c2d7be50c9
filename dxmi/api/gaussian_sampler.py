"""Samplers that learn: chains of Gaussian steps."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor

from dxmi.api.cost import CostToGo
from dxmi.api.noise import randn
from dxmi.api.sampler import Sampler, Transition


class GaussianSampler(Sampler):
    """A sampler with Gaussian steps: the only kind that learns. Parameters named ``log_std`` learn at ``lr.std``."""

    value_guided: bool = False
    """whether the steps follow the cost to go's gradient, so that the start alone has parameters (MATH 4)"""

    must_imitate: bool = False
    """whether its teacher is more than it starts as, such as guided, so that it needs ``game.imitate``"""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, cost_to_go: CostToGo, cond: Tensor | None = None) -> Transition:
        """One step: x_t (B,*S), t (B,) integer in 0..T-1 -> the law of x_{t+1}."""

    def imitation(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Distance to the steps of its teacher at x_t (B,*S), t (B,) integer in 0..T-1: a scalar to descend.

        Raises:
            NotImplementedError: it has no teacher
        """
        raise NotImplementedError(f"{type(self).__name__} has no teacher to imitate")

    def running_cost(self, x: Tensor, t: Tensor, step: Transition) -> Tensor:
        """With ``value_guided``: the cost (B,) of the step from x_t (B,*S).

        Raises:
            NotImplementedError: the steps follow no value
        """
        raise NotImplementedError(f"{type(self).__name__} is not guided by a value")

    def start_loss(self, cost_to_go: CostToGo, shape: tuple[int, ...]) -> Tensor:
        """With ``value_guided`` and parameters: what the start x_0 (B,*S) descends, a scalar.

        Raises:
            NotImplementedError: the steps follow no value
        """
        raise NotImplementedError(f"{type(self).__name__} is not guided by a value")

    def noising(self, x_next: Tensor, t: Tensor) -> Transition:
        """The law of x_t given x_{t+1} (B,*S) in the chain that log-weights compare the sampler with (MATH 4).

        Raises:
            NotImplementedError: there is none
        """
        raise NotImplementedError(f"{type(self).__name__} has no noising chain, so it has no log-weights")

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like t (B,): that chain's law of x_t given x_T is N(alpha*x_T, sigma^2 I).

        Raises:
            NotImplementedError: there is no such chain
        """
        raise NotImplementedError(f"{type(self).__name__} has no noising chain, so nothing to learn from kept states")

    def perturb(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Samples x_T (B,*S) carried to x_0 (B,*S) by that chain: where rollouts from data start.

        Raises:
            NotImplementedError: there is no such chain
        """
        parts = self.marginal(torch.zeros(len(x), dtype=torch.long, device=x.device))
        alpha, sigma = (part.view(-1, *[1] * (x.ndim - 1)) for part in parts)
        return alpha * x + sigma * randn(x.shape, x, generator)

    def start_law(self, like: Tensor) -> Transition:
        """The law of x_0 for states like (B,*S).

        Raises:
            NotImplementedError: it is not told
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell the law of its start")

    def step(
        self,
        x: Tensor,
        t: Tensor,
        cost_to_go: CostToGo,
        generator: Generator | None = None,
        cond: Tensor | None = None,
    ) -> Tensor:
        """Draw from ``forward``."""
        law: Transition = self(x, t, cost_to_go, cond)
        return law.sample(generator)
