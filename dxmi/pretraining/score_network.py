"""Networks over events of any shape whose output is a score: a free one, and an energy's gradient."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dxmi.api import ConfigError, Energy
from dxmi.api.errors import require
from dxmi.pretraining.scores import negative_gradient


class ScoreNetwork(nn.Module):
    """Flatten, ``depth`` hidden layers with SiLU, linear, unflatten. Nothing makes its output a gradient.

    With ``sigmas`` it is a score for each noise level: ``-f(x/sqrt(1 + sigma^2), n)/sigma_n``, where f knows level n by
    a learned vector. So what f has to say has the same size at all levels (Song and Ermon 2020, technique 3).

    Args:
        shape: S of the events
        width: units of a hidden layer
        depth: number of hidden layers
        sigmas: stds of the noise levels; null for one density

    Raises:
        ConfigError: width or depth is not positive
    """

    def __init__(self, shape: list[int], width: int = 128, depth: int = 3, sigmas: list[float] | None = None):
        super().__init__()
        require(width >= 1 and depth >= 1, "score", f"width {width} and depth {depth} have to be at least 1")
        self.options = {"shape": shape, "width": width, "depth": depth, "sigmas": sigmas}
        entries = math.prod(shape)
        self.stem = nn.Linear(entries, width)
        self.level = None if sigmas is None else nn.Embedding(len(sigmas), width)
        hidden = [layer for _ in range(depth - 1) for layer in (nn.SiLU(), nn.Linear(width, width))]
        self.body = nn.Sequential(*hidden, nn.SiLU(), nn.Linear(width, entries))
        self.sigmas: Tensor
        self.register_buffer("sigmas", torch.tensor(sigmas or [], dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """X (B,*S), t (B,) the number of each event's noise level -> (B,*S)."""
        if self.level is None:
            return self.body(self.stem(x.flatten(1))).view_as(x)  # type: ignore[no-any-return]
        if t is None:
            raise ConfigError("score", "this network has noise levels", "tell the number of one for each event")
        sigma = self.sigmas[t][:, None]
        f = self.body(self.stem(x.flatten(1) / (1 + sigma**2).sqrt()) + self.level(t))
        return (-f / sigma).view_as(x)  # type: ignore[no-any-return]


class EnergyScore(nn.Module):
    """``-grad E(x)``, differentiable: x (B,*S) -> (B,*S)."""

    def __init__(self, energy: Energy):
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor) -> Tensor:
        """X (B,*S) -> (B,*S)."""
        return negative_gradient(self.energy, x)


def save_score(network: ScoreNetwork, folder: Path) -> None:
    """Write ``config.json`` (its options) and ``model.safetensors`` into ``folder``, for ``load_score``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"score": network.options}, indent=2) + "\n")
    save_file({k: v.contiguous().cpu() for k, v in network.state_dict().items()}, folder / "model.safetensors")


def load_score(folder: str | Path) -> ScoreNetwork:
    """The score network in a folder that ``dxmi pretrain`` wrote: ``score(x (B,*S)) -> (B,*S)``.

    Raises:
        ConfigError: it is no such folder
    """
    folder = Path(folder)
    try:
        network = ScoreNetwork(**json.loads((folder / "config.json").read_text())["score"])
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ConfigError(folder, "is no score folder with config.json and model.safetensors") from error
    return network.eval()
