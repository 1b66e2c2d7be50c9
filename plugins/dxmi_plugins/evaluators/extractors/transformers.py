"""Image backbones of the transformers library, such as DINOv2, as feature extractors."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dxmi.api import ConfigError
from dxmi.api.fingerprint import tensors_sha256
from dxmi_plugins.evaluators.extractors.base import Extractor

RULE = ["do_resize", "size", "resample", "do_center_crop", "crop_size"]
RULE += ["do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"]


class Backbone(Extractor):
    """A folder or hub id of transformers, with its own image processor; of CLIP and its like the half that sees.

    Features are the pooled output, or the first (CLS) token where there is none or its weights are not in the file.
    """

    library = f"transformers {version('transformers')}"

    def __init__(self, source: str, option: str = "extractor"):
        self.source, self.option, self.name = source, option, Path(source).name

    def load(self) -> nn.Module:
        """The backbone in float32; weights in safetensors or as tensors alone, and no code of its folder.

        Raises:
            ConfigError: there is none, or some of its weights
        """
        from transformers import AutoModel

        try:
            model, report = AutoModel.from_pretrained(self.source, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise self._absent() from error
        missing = [key for key in report["missing_keys"] if "pooler" not in key]
        if missing:
            raise ConfigError(self.option, f"{self.source} has no weights for {missing[0]} of {type(model).__name__}")
        self.pools = not report["missing_keys"]
        return getattr(model, "vision_model", model)  # type: ignore[no-any-return]

    def ready(self) -> None:
        """Load all of it now.

        Raises:
            ConfigError: its weights or the settings of its processor are missing
        """
        _ = self.processor, self.network

    @cached_property
    def processor(self) -> Any:
        """Its own way from pixels to its input.

        Raises:
            ConfigError: it has none
        """
        from transformers import AutoImageProcessor

        try:
            return AutoImageProcessor.from_pretrained(self.source)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(
                self.option, f"{self.source} has no preprocessor_config.json, so nobody knows its resize rule"
            ) from error

    @property
    def resize(self) -> str:  # type: ignore[override]
        """The settings of its processor that matter most, and a hash of all."""
        config = self.processor.to_dict()
        rule = ", ".join(f"{key} {config[key]}" for key in RULE if config.get(key) is not None)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
        return f"{type(self.processor).__name__}: {rule}; all settings {digest[:16]}"

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """Of its tensors, by name."""
        return tensors_sha256(self.network.state_dict())

    @cached_property
    def dimension(self) -> int:  # type: ignore[override]
        """D, as a black image shows."""
        return self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))[0].shape[1]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, None]:
        """Pixels uint8 (B,3,H,W) in 0..255 -> features (B,D) float, and no logits."""
        network = self.network
        inputs = self.processor(images=list(pixels.cpu()), return_tensors="pt", input_data_format="channels_first")
        output = network(pixel_values=inputs["pixel_values"].to(self.device))
        pooled = getattr(output, "pooler_output", None) if self.pools else None
        features = output.last_hidden_state[:, 0] if pooled is None else pooled
        return features.flatten(1).float(), None

    def _absent(self) -> ConfigError:
        if Path(self.source).is_dir():
            return ConfigError(self.option, f"{self.source} is no image backbone that transformers can load")
        absent = f"there is no folder {self.source}, and the hub has it not or is out of reach"
        return ConfigError(self.option, absent, "give a folder")
