"""Whether the parts of a run fit each other: found out before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from dxmi.api import ConfigError, Cost, GaussianSampler
from dxmi.artefacts import energy_folder, read_energy
from dxmi.config import Run
from dxmi.data import Source, check_labels
from dxmi.dialect import differences
from dxmi.errors import first_line, require
from dxmi.learned import NO_SAMPLES, can_be_drawn
from dxmi.tables import about_key


def check_players(run: Run, data: bool, value_guided: bool) -> None:
    """Raise ConfigError if sampler, value and settings are not for each other; ``data`` says whether there are some."""
    fixed = not isinstance(run.sampler, GaussianSampler)
    if run.game.start != "noise" and not fixed and not (value_guided and run.game.start == "data"):
        also = ", or samplers that follow a value" if run.game.start == "data" else ""
        raise ConfigError(f"game.start: {run.game.start} is for chains that cannot learn{also}; leave it out")
    if run.game.start != "noise" and fixed and not run.sampler.stationary:
        kind = type(run.sampler).__name__
        raise ConfigError(f"game.start: {kind} has to start from noise; take chains that keep the density, as mala")
    if run.game.start == "data" and not data:
        raise ConfigError("game.start: there are no data to start from; leave it out")
    if run.data is not None and run.game.start == "chains" and run.game.chains < run.data.batch_size:
        raise ConfigError(f"game.chains: {run.game.chains} do not fill a batch of {run.data.batch_size}; give more")
    if run.game.value_steps != 1 and (fixed or (run.value is None and not any(True for _ in run.energy.parameters()))):
        raise ConfigError("game.value_steps: there is no value to learn; leave it out")
    if fixed and not data:
        raise ConfigError("sampler: neither this chain nor a known density learns; draw with 'dxmi sample'")
    if fixed and run.game.imitate:
        raise ConfigError("game.imitate: a chain that cannot learn imitates nothing; leave it out")
    if isinstance(run.sampler, GaussianSampler) and run.sampler.must_imitate and not run.game.imitate:
        raise ConfigError("game.imitate: the student has to learn its teacher's guidance; set it, to 1 for one")
    if fixed and run.value is not None:
        raise ConfigError("value: a chain that cannot learn follows the energy; leave the value out")
    if value_guided and run.value is None:
        raise ConfigError("value: the sampler follows a value's gradient; name one with time, such as informed")
    if run.lr.value is not None and run.value is None:
        raise ConfigError("lr.value: there is no value network of its own; leave it out")
    if run.game.noised:
        check_noised(run, fixed)
    given = {
        "game.explore": run.game.explore != 1,
        "game.trace": run.game.trace != 0,
        "game.target": run.game.target != 0,
        "game.ceiling": run.game.ceiling is not None,
        "replay": run.replay is not None,
    }
    for key in (key for key, used in given.items() if used and not value_guided):
        raise ConfigError(f"{key}: it is for samplers that follow a value, such as vgs; leave it out")


def check_noised(run: Run, fixed: bool) -> None:
    """Raise ConfigError if there are no data to be noised, too few, or no chain to do it."""
    if fixed or run.data is None:
        raise ConfigError("game.noised: it is for samplers that learn from data; leave it out")
    if not round(run.game.noised * run.data.batch_size):
        raise ConfigError(f"game.noised: {run.game.noised} of {run.data.batch_size} states is none; give more")
    ask("game.noised", lambda: cast(GaussianSampler, run.sampler).marginal(torch.zeros(1, dtype=torch.long)))


def ask(key: str, capability: Callable[[], object]) -> None:
    """Raise ConfigError if ``key`` needs what this sampler does not have."""
    try:
        capability()
    except NotImplementedError as error:
        raise ConfigError(f"{key}: {error}; leave it out") from error


def check_value_guided(run: Run, shape: tuple[int, ...]) -> None:
    """Raise ConfigError if other parts are not for a sampler that follows a value; shape is S."""
    if run.game.start == "data":
        ask("game.start", lambda: cast(GaussianSampler, run.sampler).perturb(torch.zeros(1, *shape)))
    require(can_be_drawn(run) or not run.evaluators, f"evaluators: {NO_SAMPLES}; leave them out")
    if run.energy.event_shape is not None:
        run.energy.with_gradient(torch.zeros(1, *run.energy.event_shape))  # says so if there is none
    if run.replay is None:
        return
    run.replay.check(run.sampler.tau)
    if run.energy.event_shape is None:
        raise ConfigError("replay: its states come from a known density, and the energy is a network")
    if run.replay.learn == "denoise":
        idle = {
            "sweep": run.game.sweep,
            "value_steps": run.game.value_steps != 1,
            "trace": run.game.trace,
            "ceiling": run.game.ceiling is not None,
        }
        for key in (key for key, used in idle.items() if used):
            raise ConfigError(f"game.{key}: rollouts teach nothing with replay.learn: denoise; leave it out")
    ask("replay", lambda: cast(GaussianSampler, run.sampler).marginal(torch.zeros(1, dtype=torch.long)))


def event_shape(run: Run, data: Source | None) -> tuple[int, ...]:
    """S, from the data or from a known density.

    Raises:
        ConfigError: there is neither, or they differ
    """
    shape = run.energy.event_shape if data is None else data.event_shape
    if shape is None:
        raise ConfigError("data: the energy is a network, so it needs data to learn from")
    own = run.energy.event_shape
    if own not in (None, shape):
        raise ConfigError(f"energy: {type(run.energy).__name__} is a density of events {own}, the data {shape}")
    return shape


def first_item(run: Run, shape: tuple[int, ...], data: Source | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One item and its condition in the sampler's space, (1,*S) and (1,...).

    Raises:
        ConfigError: the data tell labels or captions that the sampler does not know, or has no use for
    """
    if data is None or run.data is None:
        return torch.zeros(1, *run.sampler.state_shape(shape)), run.sampler.conditions(1)
    check_labels(data, run.data, run.sampler.classes)
    batch = data.batch(0, 1, run.seed)
    x, cond = run.sampler.encode(*batch)
    if batch.about is not None and cond is None:
        kind = type(run.sampler).__name__
        raise ConfigError(f"data.{about_key(run.data)}: {kind} draws at no conditions; leave it out")
    return x, cond


def initialise(run: Run, shape: tuple[int, ...], data: Source | None) -> None:
    """Let networks read their sizes from one item of the sampler's space, and try one step of the sampler.

    Raises:
        ConfigError: a part does not take that item
    """
    steps = run.sampler.steps
    x, cond = first_item(run, shape, data)
    for key, network, t in (("energy", run.energy, 0), ("value", run.value, steps - 1)):
        if network is None:
            continue
        if getattr(network, "steps", steps) != steps:
            raise ConfigError(f"{key}.steps: {network.steps} are not the sampler's {steps}")
        try:
            network(x, torch.full((1,), t), cond)
        except (RuntimeError, ValueError) as error:
            kind = type(network).__name__
            raise ConfigError(f"{key}: {kind} does not take {tuple(x.shape)}: {first_line(error)}") from error
        except IndexError as error:
            raise ConfigError(f"{key}.steps: it has fewer than the sampler's {steps}") from error
    try:
        with torch.no_grad():
            cost = Cost(run.energy, run.value, steps, cond)
            run.sampler.step(x, torch.zeros(1, dtype=torch.long), cost, cond=cond)
            if run.game.imitate:
                policy = cast(GaussianSampler, run.sampler)
                ask("game.imitate", lambda: policy.imitation(x, torch.zeros(1, dtype=torch.long), cond))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"sampler: it does not take {tuple(x.shape)}: {first_line(error)}") from error


def start_from_weights(run: Run, plugin: dict[str, Any]) -> list[str]:
    """Load ``energy_weights`` into the energy, which knows its sizes and was built of ``plugin``, as YAML has it.

    Returns the options that were others when those weights were learned: they fit, but may not mean the same.

    Raises:
        ConfigError: there is no such folder, it holds another plugin, or its weights do not fit
    """
    if run.energy_weights is None:
        return []
    folder, key = energy_folder(run.energy_weights), "energy_weights"
    require(any(True for _ in run.energy.parameters()), f"{key}: {plugin['name']} has nothing to learn; leave it out")
    try:
        config, weights = read_energy(folder)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}; give what 'dxmi pretrain' left of an energy, or a run") from error
    before = config["plugin"]
    require(before["name"] == plugin["name"], f"{key}: {folder} holds a {before['name']}, energy is {plugin['name']}")
    differing = differences(before, plugin, "energy")
    try:
        run.energy.load_state_dict(weights)
    except RuntimeError as error:
        why = "; ".join(differing) or str(error).strip().splitlines()[-1].strip()
        raise ConfigError(f"{key}: the weights in {folder} do not fit the energy: {why}") from error
    return differing
