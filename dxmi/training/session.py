"""One process's share of a run: its state, and what is drawn from it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, set_seed
from torch import Tensor

from dxmi.api import ConfigError, Draw, Energy, Sampler, ValueGuided, cost_to_go
from dxmi.api.errors import require
from dxmi.chains import SamplerDraw
from dxmi.config import Checked, TrainConfig
from dxmi.config.machine import check_memory, check_processes
from dxmi.data import Draws, Encoded, Items, Source, cached, draw_batch, load_data
from dxmi.evaluation import Halves, halves
from dxmi.game import build_game
from dxmi.screen import Screen
from dxmi.training.checks import check_parts
from dxmi.training.initialise import event_shape, initialise, start_from_weights


class Session:
    """One process's share of a run; one that is not ``fresh`` has its weights from a checkpoint later."""

    def __init__(self, config: Checked[TrainConfig], out: Path, fresh: bool = True):
        self.config, self.out = config, out
        values = config.values
        tracker = values.tracker
        available = [str(known) for known in get_available_trackers()]
        if tracker is not None and tracker not in available:
            raise ConfigError(
                "tracker", f"'{tracker}' is not installed here", f"give null or one of {', '.join(available)}"
            )
        require(0 <= values.seed < 2**32, "seed", f"{values.seed} is not between 0 and 2^32 - 1")
        set_seed(values.seed)
        self.run = run = config.build()
        self.data: Source | None = None if run.data is None else load_data(run.data)
        self.shape = event_shape(run, self.data)
        run.sampler.check(self.shape)
        self.value_guided = isinstance(run.sampler, ValueGuided)
        check_parts(run, self.shape)
        project = ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "logs"))
        self.accelerator = Accelerator(log_with=tracker, project_config=project)
        check_processes(self.accelerator)
        check_memory(run, self.shape, self.accelerator.device)
        initialise(run, self.shape, self.data)
        changed = start_from_weights(run, config.resolved["energy"]) if fresh else []
        players = run.energy, run.sampler, run.value
        self.game = build_game(*players, run.game, run, self.accelerator, run.steps, run.replay)
        self.accelerator.register_for_checkpointing(self.game, *self.game.averages())
        self.main = self.accelerator.is_main_process
        self.screen = Screen(self.main)
        self.encoded: Encoded | None = None
        for line in changed:
            self.screen.tell(f"energy_weights: learned with other options: {line}")

    def encode_data(self) -> None:
        """With ``data.cache``: what the sampler makes of all data, from disk or now."""
        data = self.run.data
        if isinstance(self.data, Items) and data is not None and data.cache is not None:
            self.encoded = cached(self.data, self.run.sampler, Path(data.cache), self.accelerator, self.screen.tell)

    def halves(self) -> Halves:
        """Samples of the known density that is learned from, or sampled."""
        run = self.run
        energy, tau = (self.data.energy, 1.0) if isinstance(self.data, Draws) else (run.energy, run.sampler.tau)
        return halves(energy, tau, run.paths, run.seed)

    def batch(self) -> tuple[Tensor | None, Tensor | None]:
        """The data of the next round in the sampler's space and their conditions, on this process's device."""
        if self.data is None or self.run.data is None:
            return None, None
        given = self.run.data, self.game.rounds, self.run.seed, self.accelerator
        if self.encoded is None:
            return self.run.sampler.encode(*draw_batch(self.data, *given))
        x, cond = draw_batch(self.encoded, *given)
        return x, cast(Tensor | None, cond)

    def rollout_shape(self) -> tuple[int, ...]:
        """(B,*S), in the sampler's space."""
        batch_size = self.run.batch_size if self.run.data is None else self.run.data.batch_size
        return (batch_size, *self.run.sampler.state_shape(self.shape))

    def average(self) -> Sampler:
        """The averaged sampler, which is the product."""
        return cast(Sampler, self.game.players.ema.module)

    def student(self, times: int = 1) -> Draw:
        """What the run has made, to be drawn from, with the chain run ``times`` times on end."""
        cost = cost_to_go(self.run.energy, self.averaged_value(), self.run.sampler)
        return SamplerDraw(self.average().eval(), self.shape, cost, times)

    def averaged_value(self) -> Energy | None:
        """The value that the averaged sampler follows; the learned one where it follows none."""
        average = self.game.players.value_ema
        return self.run.value if average is None else cast(Energy, average.module)
