"""The players of the game: networks, averages, optimisers and one step of descent."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dxmi.api import ConfigError, Cost, Energy, Sampler, ValueGuided, cost_to_go
from dxmi.api.errors import first_line
from dxmi.config import LearningConfig


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through the modules but not into their parameters."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def descend(
    loss: Tensor | Iterable[Tensor],
    network: nn.Module,
    optimizer: Any,
    accelerator: Accelerator,
    limit: float | None,
    failure: Callable[[str], str],
    alone: nn.Module | None = None,
) -> Tensor:
    """One step of an optimiser; the norm of the gradient before it is clipped, a scalar.

    Args:
        loss: a scalar, or several whose sum is descended, each forgotten before the next is asked for
        network: what learns, as accelerate wraps it
        optimizer: its optimiser, the same
        accelerator: which wrapped them
        limit: largest norm of the gradient; None does not clip
        failure: the message where the "loss" or its "gradient" is not finite
        alone: the network without what DDP wraps around it, where the loss did not come by that one's forward: its
            gradients are averaged over processes here

    Raises:
        FloatingPointError: the loss or the gradient is not finite; nothing has moved
    """
    optimizer.zero_grad()
    total: Any = 0
    for part in [loss] if isinstance(loss, Tensor) else loss:
        accelerator.backward(part)
        total = total + part.detach()
    for p in () if alone is None else alone.parameters():
        p.grad = None if p.grad is None else accelerator.reduce(p.grad, "mean")
    parameters = list(network.parameters())
    accelerator.unscale_gradients(optimizer)
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit is not None:
        clip_grads_with_norm_(parameters, limit, norm)
    # One test for both. With float16 a gradient may overflow, and accelerate's scaler skips that step by itself.
    if not (total if accelerator.scaler else total + norm).isfinite():
        raise FloatingPointError(failure("gradient" if total.isfinite() else "loss"))
    optimizer.step()
    return norm.detach()


class Players:
    """Energy, sampler and value with their optimisers.

    An energy without parameters is a known density and stays as it is. Networks must know their sizes already
    (no lazy parameters left). ``ema.module`` is the averaged sampler, ``value_ema.module`` the averaged value where the
    sampler follows its gradient, ``target_value.module`` the one that targets are made of where ``target`` is set.
    ``networks`` is what learns, by the player's name, as accelerate wraps it; ``rounds`` how many rounds were played.

    Args:
        value: a network with time; None makes the energy's network the value too (the paper's image runs)
        accelerator: places the players and averages over processes; None takes accelerate's default device
        total: number of rounds, over which ``decay: cosine`` lowers the learning rates
        target: decay of the moving average of the value that targets are made of; 0 makes them of the value itself
        score: a network that learns what samples look like, for score distillation

    Raises:
        ConfigError: the optimiser does not exist or does not take the betas
    """

    def __init__(
        self,
        energy: Energy,
        sampler: Sampler,
        value: Energy | None = None,
        learning: LearningConfig | None = None,
        accelerator: Accelerator | None = None,
        total: int | None = None,
        target: float = 0.0,
        score: nn.Module | None = None,
    ):
        self.learning = learning or LearningConfig()
        self.accelerator = accelerator or Accelerator()
        self.energy, self.sampler, self.value, self.score = energy, sampler, value, score
        self.total, self.rounds = total, 0
        players: dict[str, nn.Module | None] = {"energy": energy, "value": value, "sampler": sampler, "score": score}
        self.networks: dict[str, Any] = {}
        self.optimizers: dict[str, Any] = {}
        for module in filter(None, players.values()):
            module.to(self.accelerator.device)
        # Copied before accelerate wraps forward in its mixed precision: what is exported runs without it too.
        self.ema = averaged(sampler, self.learning.ema, self.learning.ema_ramp)
        guided = isinstance(sampler, ValueGuided)
        self.value_ema = (
            averaged(value, self.learning.ema, self.learning.ema_ramp) if guided and value is not None else None
        )
        self.target_value = averaged(value, target) if target and value is not None else None
        for name, player in players.items():
            if player is not None and any(p.requires_grad for p in player.parameters()):
                optim = make_optimizer(player, self.learning, self._rate(name))
                self.networks[name], self.optimizers[name] = self.accelerator.prepare(player, optim)
        self.rates = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}

    @property
    def valued(self) -> str:
        """The player that learns the value: the energy where there is no value of its own."""
        return "energy" if self.value is None else "value"

    def judges(self) -> list[nn.Module]:
        """What the sampler learns through and must not change: energy and values."""
        return [module for module in (self.energy, self.value, self.target_value) if module is not None]

    def cost_to_go(self, cond: Tensor | None = None) -> Cost:
        """What the rounds look ahead with: the energy at the end, before it the value or its target network."""
        value = self.value if self.target_value is None else cast(Energy, self.target_value.module)
        return cost_to_go(self.energy, value, self.sampler, cond)

    def averages(self) -> list[AveragedModel]:
        """Every average there is."""
        return [average for average in (self.ema, self.value_ema, self.target_value) if average is not None]

    def follow_sampler(self) -> None:
        """Move the sampler's average towards it, if it has anything to average."""
        if "sampler" in self.networks:
            self.ema.update_parameters(self.sampler)

    def follow_value(self) -> None:
        """Move the value's averages towards it, if it has anything to average."""
        for average in (self.value_ema, self.target_value):
            if average is not None and self.value is not None and "value" in self.networks:
                average.update_parameters(self.value)

    def set_rates(self) -> None:
        """The learning rates of this round. They depend on nothing but its number, so a resumed run has them too."""
        if self.learning.decay == "cosine" and self.total:
            factor = (1 + math.cos(math.pi * min(self.rounds / self.total, 1))) / 2
            for name, optim in self.optimizers.items():
                for group, rate in zip(optim.param_groups, self.rates[name], strict=True):
                    group["lr"] = rate * factor

    def descend(self, player: str, loss: Tensor | Iterable[Tensor], wrapped: bool = True) -> Tensor:
        """One step of a player's optimiser; the norm of its gradient, then clipped as ``clip`` says.

        loss: a scalar, or several whose sum is descended one after the other
        wrapped: whether the loss comes by the forward that DDP sees, which then averages the gradient over processes

        Raises:
            FloatingPointError: the loss or the gradient is not finite; nothing has moved
        """

        def failure(what: str) -> str:
            cure = f"lower lr.{player}, or set clip.{player}, in a new run"
            return f"{player}: the {what} is not finite in round {self.rounds + 1}; {cure}"

        network, optimizer, limit = self.networks[player], self.optimizers[player], getattr(self.learning.clip, player)
        alone = None if wrapped else getattr(self, player)
        return descend(loss, network, optimizer, self.accelerator, limit, failure, alone)

    def averaged_over_processes(self, log: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of a round. An energy that is only looked at, such as a known density's, may be infinite."""
        means = self.accelerator.reduce(torch.stack(list(log.values())), "mean") if log else ()
        return dict(zip(log, means, strict=True))

    def _rate(self, player: str) -> float:
        rate = getattr(self.learning.lr, player)
        return float(self.learning.lr.energy if rate is None else rate)


def averaged(module: nn.Module, decay: float, ramp: bool = False) -> AveragedModel:
    """A copy that follows the module's weights as their exponential moving average; what is frozen the two share.

    With ``ramp`` the decay rises to its value as ``(1 + n)/(10 + n)`` in the n-th update: the start is soon forgotten.
    """

    def follow_learned(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        apart = [(a, c) for a, c in zip(averages, current, strict=True) if a.data_ptr() != c.data_ptr()]
        if apart:
            now = min(decay, (1 + int(count)) / (10 + int(count))) if ramp else decay
            follow: Any = get_ema_multi_avg_fn(now)  # type: ignore[no-untyped-call]
            follow(*map(list, zip(*apart, strict=True)), count)

    average = AveragedModel(nn.Identity(), multi_avg_fn=follow_learned)
    average.module = copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})
    return average


def make_optimizer(module: nn.Module, learning: LearningConfig, rate: float) -> torch.optim.Optimizer:
    """The optimiser of one player; parameters named ``log_std`` learn at ``lr.std``.

    Raises:
        ConfigError: torch.optim has no such class, or it does not take the betas
    """
    kind = getattr(torch.optim, learning.optimizer, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ConfigError("optimizer", f"torch.optim has no '{learning.optimizer}'", "try Adam, AdamW or RAdam")
    options: dict[str, Any] = {} if learning.betas is None else {"betas": learning.betas}
    if learning.betas is not None and "betas" not in inspect.signature(kind).parameters:
        raise ConfigError("betas", f"torch.optim.{learning.optimizer} takes none", "set betas: null")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        own = learning.lr.std if name.endswith("log_std") else rate
        if parameter.requires_grad:
            groups.setdefault(own, []).append(parameter)
    try:
        return kind([{"params": p, "lr": lr} for lr, p in groups.items()], **options)
    except (TypeError, ValueError) as error:
        raise ConfigError("optimizer", f"torch.optim.{learning.optimizer} refuses this: {first_line(error)}") from error
