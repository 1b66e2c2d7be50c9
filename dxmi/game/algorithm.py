"""DxMI: the min-max game between an energy and a sampler (MATH 3), one round at a time."""

from __future__ import annotations

from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dxmi.api import Energy, KnowsScore, Sampler
from dxmi.config import GameConfig, LearningConfig, ReplayConfig
from dxmi.game.players import Players
from dxmi.game.replay_buffer import ReplayBuffer
from dxmi.game.rollouts import Rollouts
from dxmi.game.state import State
from dxmi.game.updates import choose_updates
from dxmi.game.warm_start import WarmStart


class DxMI:
    """The game: players, rollouts, and what happens in a round after a rollout, ``updates``.

    Args:
        players: energy, sampler and value with their optimisers
        rollouts: the sampler's chains, and the config of the game
        buffer: states kept from round to round for the value to learn at
    """

    def __init__(self, players: Players, rollouts: Rollouts, buffer: ReplayBuffer | None = None):
        self.players, self.rollouts, self.buffer = players, rollouts, buffer
        settings = rollouts.game.warm_start
        self.warm_start = None if settings is None else WarmStart(settings, players)
        self.updates = choose_updates(rollouts.game, players, rollouts, buffer, self.warm_start)
        self.state = State()

    @property
    def rounds(self) -> int:
        """How many rounds have been played."""
        return self.players.rounds

    def averages(self) -> list[AveragedModel]:
        """Every average of players there is."""
        return self.players.averages()

    def round(self, data: Tensor | None, shape: tuple[int, ...], cond: Tensor | None = None) -> dict[str, Tensor]:
        """One round: a rollout; then the energy (MATH 3.1), s_t^2 (3.5), the value (3.3) and the sampler (3.4) learn.

        data: a batch (B,*S) in the sampler's space, or None for a known density; shape: (B,*S) of the rollout there;
        cond: conditions (B,...) of the batch, at which the rollout draws too.
        Returns scalars to log, averaged over processes.

        Raises:
            FloatingPointError: a loss or its gradient is not finite; that player has not moved
        """
        players, state = self.players, self.state
        if data is None:
            cond = players.sampler.conditions(shape[0])
        elif cond is not None:
            shape = tuple(data.shape)  # the last of few data may not fill a batch
        players.set_rates()
        state.data, state.cond, state.J = data, cond, players.cost_to_go(cond)
        state.xs = self.rollouts.play(state.J, shape, data, cond)
        log: dict[str, Tensor] = {}
        for update in self.updates:
            log |= update(state)
        self.state = state.kept()
        players.rounds += 1
        return players.averaged_over_processes(log)

    def state_dict(self) -> dict[str, Any]:
        """What accelerate does not save by itself: running averages, number of rounds, every process's kept states."""
        own = {"chains": self.rollouts.chains, "buffer": None if self.buffer is None else self.buffer.state_dict()}
        kept = gather_object([send_to_device(own, "cpu")])  # whoever reads them may have fewer devices, or none
        return {"s2": self.state.s2, "shares": self.state.shares, "kept": kept, "rounds": self.rounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``; among more processes than there were, some start from the same states."""
        accelerator = self.players.accelerator
        own = state["kept"][accelerator.process_index % len(state["kept"])]
        self.state.s2, self.state.shares, self.rollouts.chains = (
            None if kept is None else kept.to(accelerator.device)
            for kept in (state["s2"], state["shares"], own["chains"])
        )
        if self.buffer is not None:
            self.buffer.load_state_dict(own["buffer"], accelerator.device)
        self.players.rounds = state["rounds"]


def build_game(
    energy: Energy,
    sampler: Sampler,
    value: Energy | None = None,
    game: GameConfig | None = None,
    learning: LearningConfig | None = None,
    accelerator: Accelerator | None = None,
    total: int | None = None,
    replay: ReplayConfig | None = None,
) -> DxMI:
    """The game between these, as configs describe it; ``Players`` tells the arguments.

    Raises:
        ConfigError: the optimiser does not exist or does not take the betas
    """
    game = game or GameConfig()
    buffer = None if replay is None else ReplayBuffer(replay, energy)
    score = cast(KnowsScore, sampler).score_network() if game.distil else None
    players = Players(energy, sampler, value, learning, accelerator, total, game.target, score)
    return DxMI(players, Rollouts(sampler, game), buffer)
