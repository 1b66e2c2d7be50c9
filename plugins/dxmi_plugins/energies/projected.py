"""A critic on a frozen network that knows photographs: projected GANs (Sauer et al. 2021, arXiv 2111.01007)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from dxmi.api import ConfigError, Energy
from dxmi_plugins.backbones.efficientnet_lite0 import CHANNELS, load_efficientnet_lite0
from dxmi_plugins.energies.heads import CriticHead

SCALES = 4
"""maps that the critic sees, the coarsest of the network's: the paper's number"""
UNUSED = ("conv_head", "bn1", "fc")
"""what comes after them"""


class Projected(Energy):
    """The mean of numbers for each place of the maps of EfficientNet-Lite0, trained on ImageNet and frozen.

    Of each of four resolutions the channels are mixed by a random map that stays as it is, so that the critic cannot
    cling to some of them, and a small convolutional head learns on the mix. The heads are told the noise level; the
    images are shown as they are, since the energy cannot know by what a teacher has scaled them: those of
    variance-preserving and flow-matching teachers are as large as images at every level, while those of
    variance-exploding ones are not, and mean little to this network.

    Of the network nothing is saved: its package has it. Judge with another one than this.

    Args:
        width: channels of the mixes and the heads
        size: images with a shorter side than this are enlarged to it: the network was trained at 224; time and memory
            grow with its square

    Raises:
        ConfigError: the package of the network is not installed, or an option is out of its range
    """

    reads_noise = True

    def __init__(self, width: int = 64, size: int = 64):
        super().__init__()
        for key, given in {"width": width, "size": size}.items():
            if given < 1:
                raise ConfigError(key, f"{given} is not positive")
        self.size = size
        self.network = load_efficientnet_lite0("name")
        for part in UNUSED:
            delattr(self.network, part)
        self.register_state_dict_post_hook(drop_network)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(miss_no_network)  # type: ignore[no-untyped-call]
        self.mixes = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in CHANNELS[-SCALES:])
        self.mixes.requires_grad_(False)
        self.head = CriticHead(SCALES, width, noised=True, pool=False)

    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """Colour images x (B,3,H,W), clean ones in [-1, 1], t (B,) their noise level in [0, 1000] -> (B,).

        Raises:
            ConfigError: x are no colour images
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ConfigError(
                "projected", f"states {tuple(x.shape[1:])} are no colour images (3,H,W)", "take teacher_features"
            )
        side = min(x.shape[2:])
        if side < self.size:
            sides = [round(n * self.size / side) for n in x.shape[2:]]
            x = interpolate(x, sides, mode="bilinear", align_corners=False)
        maps = self.network.maps(x)[-SCALES:]
        return self.head([mix(h) for mix, h in zip(self.mixes, maps, strict=True)], t)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Projected:
        """The frozen network keeps its statistics."""
        super().train(mode)
        self.network.eval()
        return self


def drop_network(energy: Projected, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Take the frozen network, its statistics included, out of a state_dict."""
    for name in [name for name in state if name.startswith(f"{prefix}network.")]:
        del state[name]


def miss_no_network(energy: Projected, found: Any) -> None:
    """A state_dict without it is whole."""
    own = tuple(f".network.{name}" for name, _ in [*energy.network.named_parameters(), *energy.network.named_buffers()])
    found.missing_keys[:] = [name for name in found.missing_keys if not f".{name}".endswith(own)]
