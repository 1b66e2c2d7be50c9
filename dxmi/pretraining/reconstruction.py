"""What ``dxmi pretrain`` does with an energy that is an autoencoder: it learns to give the data back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from dxmi.api import ConfigError, Reconstructs
from dxmi.api.errors import first_line
from dxmi.config import PretrainConfig
from dxmi.data import Batch, Source
from dxmi.pretraining.model import Model
from dxmi.runs.energy import save_energy


class Reconstruction(nn.Module):
    """The energy's ``reconstruction_loss`` as a forward pass, which is what distributed training wraps."""

    def __init__(self, energy: nn.Module):
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor) -> Tensor:
        """X (B,*S) -> scalar."""
        return cast(Reconstructs, self.energy).reconstruction_loss(x)


def reconstruction_model(run: PretrainConfig, source: Source) -> Model:
    """An energy that learns to give the data back (TOOLBOX C): what EBM-VGS starts from.

    Raises:
        ConfigError: the energy gives nothing back, or does not take the data
    """
    kind, x = type(run.energy).__name__, source.batch(0, 8, run.seed).items
    if run.energy is None or not isinstance(run.energy, Reconstructs):
        raise ConfigError("energy", f"{kind} has no reconstruction_loss", "take an autoencoder, as sphere_autoencoder")
    network = Reconstruction(run.energy)
    try:
        network(x)  # it reads its sizes
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError("energy", f"{kind} does not take {tuple(x.shape)}: {first_line(error)}") from error

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        per_entry: Tensor = network(batch.items) / batch.items[0].numel()
        return per_entry

    def save(network: nn.Module, out: Path, resolved: dict[str, Any]) -> dict[str, float]:
        save_energy(cast(Reconstruction, network).energy, resolved["energy"], 0, out, source.event_shape)  # type: ignore[arg-type]
        return {}

    return Model(network, loss, save)
