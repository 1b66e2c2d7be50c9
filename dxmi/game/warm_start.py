"""The warm start: a few steps learn the paths that the teacher takes in many (MATH 3.8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Generator, Tensor

from dxmi.api import KnowsPaths
from dxmi.config import WarmStartConfig
from dxmi.game.players import Players, descend
from dxmi.game.state import State


class WarmStart:
    """Paths of the teacher, drawn once; each transition learns to land on its path's next node.

    What it gives for nothing is the teacher's map from noise to classes, so their shares are right at once.
    """

    def __init__(self, settings: WarmStartConfig, players: Players):
        self.settings, self.players = settings, players
        self.sampler = cast(KnowsPaths, players.sampler)

    def draw(self, generator: Generator) -> None:
        """Draw the paths; they stay where the main memory is."""
        xs, cond = self.sampler.paths(self.settings.paths, self.settings.steps, generator)
        self.xs, self.cond, self.generator = xs.cpu(), None if cond is None else cond.cpu(), generator

    def learn(self, batch: int) -> Iterator[float]:
        """All its rounds, on batches of this size, with an optimiser of its own; yields the loss of each.

        Raises:
            FloatingPointError: a loss or its gradient is not finite
        """

        def failure(what: str) -> str:
            return f"sampler: the {what} of the warm start is not finite; lower game.warm_start.rate, in a new run"

        players, settings = self.players, self.settings
        sampler = players.sampler
        optimizer = torch.optim.Adam([p for p in sampler.parameters() if p.requires_grad])
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=settings.rounds)
        # Not by ``prepare``, or checkpoints would hold it. With float16 its steps have to go by the scaler.
        scaled = AcceleratedOptimizer(optimizer, device_placement=False, scaler=players.accelerator.scaler)
        for i in range(settings.rounds):
            loss = self.loss(i % sampler.steps, batch, self.generator)
            descend(loss, sampler, scaled, players.accelerator, None, failure, alone=sampler)
            rates.step()
            yield float(loss.detach())
        players.ema.module.load_state_dict(sampler.state_dict())

    def loss(self, k: int, batch: int, generator: Generator | None = None) -> Tensor:
        """The loss of transition k on some of the paths, a scalar. They are chosen by ``generator``, or by torch's own.

        The state of torch's own is in checkpoints, so that a resumed run goes on with the same paths.
        """
        device = self.players.accelerator.device
        rows = torch.randint(self.xs.shape[1], (batch,), generator=generator)
        x, x_next = self.xs[k, rows].to(device), self.xs[k + 1, rows].to(device)
        cond = None if self.cond is None else self.cond[rows].to(device)
        return self.sampler.path_loss(x, torch.full((batch,), k, device=device), x_next, cond)

    def __call__(self, state: State, k: int, x_next: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
        """``path_loss`` beside the game, with the weight ``keep``, at one transition of each round."""
        if k != self.players.rounds % self.players.sampler.steps:
            return None
        loss = self.loss(k, len(x_next))
        return self.settings.keep * loss, {"path_loss": loss.detach()}
