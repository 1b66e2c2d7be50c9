"""Annealed Langevin for diffusers' pipelines (TOOLBOX row 23; Song and Ermon 2019, 2020)."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor

from dxmi.api import ConfigError
from dxmi.api.noise import per_row
from dxmi_plugins.schedulers.noise_ladder import chosen_step_size, ladder, step_size_at
from dxmi_plugins.schedulers.noise_ladder import suggest_sigmas as suggest_sigmas


class AnnealedLangevinScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """``x' = x + h_n*score + sqrt(2*h_n)*eps``, ``inner`` times at each of falling noise levels sigma_n.

    The step size ``h_n = step_size*(sigma_n/sigma_min)^2``. Runs score networks in any diffusers pipeline that draws
    pixels, such as ``DDPMPipeline``. As elsewhere in diffusers, timestep 0 is the cleanest level. Pipelines start from
    N(0, I) and ask the network before they ask the scheduler. So the first timestep of a run comes once more: that step
    scales the start to the first level and leaves the network's output aside, and ``init_noise_sigma`` is 1. Runs that
    begin with noisy pictures of their own, as image-to-image ones do, have to begin below the first level.

    diffusers loads no class that was not imported: ``import dxmi_plugins.schedulers.annealed_langevin`` before
    ``DiffusionPipeline.from_pretrained``. ``num_inference_steps`` levels are visited, at most all.

    Args:
        sigmas: stds of the noise, falling; null takes a geometric ladder; ``suggest_sigmas`` finds them for some data
        sigma_max: std of the noisiest level
        sigma_min: std of the cleanest level
        num_train_timesteps: number of levels; set to the length of ``sigmas`` where they are given
        inner: steps at each level
        step_size: h at the cleanest level; null takes technique 4's of Song and Ermon 2020, for data of no width
        prediction_type: what the network returns: score, epsilon (the noise over its std) or sample (the clean x)
        denoise: whether the last of all steps removes the cleanest level's noise, ``x' = x + sigma^2*score``

    Raises:
        ConfigError: an option is out of its range
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sigmas: list[float] | None = None,
        sigma_max: float = 50.0,
        sigma_min: float = 0.01,
        num_train_timesteps: int = 232,
        inner: int = 5,
        step_size: float | None = None,
        prediction_type: str = "score",
        denoise: bool = True,
    ):
        if prediction_type not in ("score", "epsilon", "sample"):
            raise ConfigError("prediction_type", f"'{prediction_type}' is not score, epsilon or sample")
        if sigmas is None and num_train_timesteps < 2:
            raise ConfigError("num_train_timesteps", f"{num_train_timesteps} levels are no ladder", "give 2 or more")
        levels = ladder(sigmas, sigma_max, sigma_min, num_train_timesteps)
        self.register_to_config(num_train_timesteps=len(levels))
        self.step_size = chosen_step_size(step_size, levels, inner)
        self.sigmas = torch.tensor(levels[::-1], dtype=torch.float64)
        """(N,), the noise's std at each timestep"""
        self.set_timesteps()

    @staticmethod
    def suggest(data: Tensor, sigma_min: float = 0.01) -> dict[str, Any]:
        """Options of a geometric ladder for data (N,*S): from their largest distance, with overlapping levels.

        Raises:
            ConfigError: no two events are further apart than ``sigma_min``
        """
        sigmas, _ = suggest_sigmas(data, sigma_min)
        return {"sigma_max": sigmas[0], "num_train_timesteps": len(sigmas)}

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Begin a run over that many levels, evenly spaced from the noisiest to the cleanest.

        None takes all. As with diffusers' own schedulers, tell a pipeline how many: it asks for 1000 or 50 otherwise.

        Raises:
            ValueError: there are fewer levels, or the number is not positive
        """
        n = len(self) if num_inference_steps is None else num_inference_steps
        if not 1 <= n <= len(self):
            raise ValueError(f"num_inference_steps: {n} is not between 1 and the number of noise levels, {len(self)}")
        visited = torch.linspace(0, len(self.sigmas) - 1, n, dtype=torch.float64).round().long().flip(0)
        steps = visited.repeat_interleave(self.config.inner)
        last = visited[-1:] if self.config.denoise else visited[:0]
        self.timesteps = torch.cat([visited[:1], steps, last]).to(device)
        self.num_inference_steps = n
        self._order: list[int] = self.timesteps.tolist()
        self._next: int | None = None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network sees x as it is."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x + sigma_t*noise``: clean x and noise (B,*S), timesteps (B,) integer in 0..N-1 -> (B,*S)."""
        sigma = self.sigmas.to(original_samples)[timesteps.to(original_samples.device)]
        return original_samples + per_row(sigma, original_samples) * noise

    def score(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The score that the network's output (B,*S) at x (B,*S) stands for, by prediction type (TOOLBOX row 22)."""
        if self.config.prediction_type == "score":
            return output
        return -output / sigma if self.config.prediction_type == "epsilon" else (output - x) / sigma**2

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generator | list[Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """One step of the run: model output and x (B,*S) at the next of ``timesteps`` -> the next x (B,*S).

        Raises:
            ValueError: the timestep is not the next one
        """
        place = self._take(int(timestep))
        sigma, sigma_min = float(self.sigmas[int(timestep)]), float(self.sigmas[0])
        score = self.score(model_output, sample, sigma)
        if place == 0:
            x_next = sigma * sample
        elif self.config.denoise and place + 1 == len(self._order):
            x_next = sample + sigma**2 * score
        else:
            h = step_size_at(sigma, sigma_min, self.step_size)
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            x_next = sample + h * score + math.sqrt(2 * h) * noise
        return SchedulerOutput(prev_sample=x_next) if return_dict else (x_next,)

    def _take(self, timestep: int) -> int:
        """The place in the run of a step at this timestep; runs can begin at any level, as image-to-image ones do."""
        places = range(len(self._order)) if self._next is None else [self._next]
        for place in places:
            if place < len(self._order) and self._order[place] == timestep:
                self._next = place + 1
                return place
        wanted = self._order[self._next : self._next + 1] if self._next is not None else self._order
        raise ValueError(f"timestep {timestep} is not the next one of {wanted}; call set_timesteps before a new run")

    def __len__(self) -> int:
        return len(self.sigmas)
