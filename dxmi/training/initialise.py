"""Networks of a run: their sizes, read off one item, and the weights that they start from."""

from __future__ import annotations

from typing import Any, cast

import torch

from dxmi.api import ConfigError, Imitates, cost_to_go
from dxmi.api.errors import first_line, require
from dxmi.config import TrainConfig
from dxmi.config.yaml_files import differences
from dxmi.data import Source, about_key, check_labels
from dxmi.runs.energy import read_energy
from dxmi.runs.folder import energy_folder


def event_shape(run: TrainConfig, data: Source | None) -> tuple[int, ...]:
    """S, from the data or from a known density.

    Raises:
        ConfigError: there is neither, or they differ
    """
    shape = run.energy.event_shape if data is None else data.event_shape
    if shape is None:
        raise ConfigError("data", "the energy is a network, so it needs data to learn from")
    own = run.energy.event_shape
    if own not in (None, shape):
        raise ConfigError("energy", f"{type(run.energy).__name__} is a density of events {own}, the data {shape}")
    return shape


def first_item(
    run: TrainConfig, shape: tuple[int, ...], data: Source | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
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
        raise ConfigError(f"data.{about_key(run.data)}", f"{kind} draws at no conditions", "leave it out")
    return x, cond


def initialise(run: TrainConfig, shape: tuple[int, ...], data: Source | None) -> None:
    """Let networks read their sizes from one item of the sampler's space, and try one step of the sampler.

    Raises:
        ConfigError: a part does not take that item
    """
    steps = run.sampler.steps
    x, cond = first_item(run, shape, data)
    for key, network, t in (("energy", run.energy, 0), ("value", run.value, steps - 1)):
        if network is None:
            continue
        if network.steps not in (None, steps):
            raise ConfigError(f"{key}.steps", f"{network.steps} are not the sampler's {steps}")
        try:
            network(x, torch.full((1,), t), cond)
        except (RuntimeError, ValueError) as error:
            kind = type(network).__name__
            raise ConfigError(key, f"{kind} does not take {tuple(x.shape)}: {first_line(error)}") from error
        except IndexError as error:
            raise ConfigError(f"{key}.steps", f"it has fewer than the sampler's {steps}") from error
    try:
        with torch.no_grad():
            cost = cost_to_go(run.energy, run.value, run.sampler, cond)
            run.sampler.step(x, torch.zeros(1, dtype=torch.long), cost, cond=cond)
            if run.game.imitate:
                cast(Imitates, run.sampler).imitation(x, torch.zeros(1, dtype=torch.long), cond)
    except (RuntimeError, ValueError) as error:
        raise ConfigError("sampler", f"it does not take {tuple(x.shape)}: {first_line(error)}") from error


def start_from_weights(run: TrainConfig, plugin: dict[str, Any]) -> list[str]:
    """Load ``energy_weights`` into the energy, which knows its sizes and was built of ``plugin``, as YAML has it.

    Returns the options that were others when those weights were learned: they fit, but may not mean the same.

    Raises:
        ConfigError: there is no such folder, it holds another plugin, or its weights do not fit
    """
    if run.energy_weights is None:
        return []
    folder, key = energy_folder(run.energy_weights), "energy_weights"
    require(
        any(True for _ in run.energy.parameters()), f"{key}", f"{plugin['name']} has nothing to learn", "leave it out"
    )
    try:
        config, weights = read_energy(folder)
    except ConfigError as error:
        raise ConfigError(key, f"{error}", "give what 'dxmi pretrain' left of an energy, or a run") from error
    before = config["plugin"]
    require(before["name"] == plugin["name"], key, f"{folder} holds a {before['name']}, energy is {plugin['name']}")
    differing = differences(before, plugin, "energy")
    try:
        run.energy.load_state_dict(weights)
    except RuntimeError as error:
        why = "; ".join(differing) or str(error).strip().splitlines()[-1].strip()
        raise ConfigError(key, f"the weights in {folder} do not fit the energy: {why}") from error
    return differing
