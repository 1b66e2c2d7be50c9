"""A few Gaussian steps between noise levels, as a diffusers scheduler (dxmi; MATH 2).

This file needs torch and diffusers alone: exported pipelines carry a copy of it.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction", "edm", "score")


class FewStepScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """``T`` Gaussian transitions between noise levels, ``x_t = alpha_t*x0 + sigma_t*eps``, MATH (2.1) and (2.2).

    The T steps were learned together, so they are all made, whatever number a pipeline asks for.

    Args:
        table: T rows [timestep, alpha_t, sigma_t, alpha_s, sigma_s, std] from noisy t to less noisy s, noisiest first
        prediction_type: what the network returns: epsilon, sample, v_prediction, flow_prediction (eps - x0), edm (the
            raw network of Karras et al. 2022) or score
        sigma_data: std of the data that an EDM network was made for, which sees ``x/sqrt(sigma^2 + sigma_data^2)``
        eta: 1 gives the ancestral (DDPM) means, 0 the deterministic (DDIM) ones
        clip_sample: clip the mean of the last step to [-1, 1], the range of pixels
        init_noise_sigma: std of the noise that the first step starts from

    Raises:
        ValueError: the table is no list of rows of 6 numbers, or the prediction type is not known
    """

    order = 1

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        table: list[list[float]],
        prediction_type: str = "epsilon",
        sigma_data: float = 1.0,
        eta: float = 1.0,
        clip_sample: bool = True,
        init_noise_sigma: float = 1.0,
    ):
        if not table or any(len(row) != 6 for row in table):
            raise ValueError("table: give rows of 6 numbers, one for each step")
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type: '{prediction_type}' is none of {', '.join(PREDICTION_TYPES)}")
        self.steps, self.init_noise_sigma = len(table), init_noise_sigma
        self.rows = torch.tensor(table, dtype=torch.float64)
        whole = bool((self.rows[:, 0] == self.rows[:, 0].round()).all())
        self.timesteps = self.rows[:, 0].to(torch.int64 if whole else torch.float32)
        self.stds = self.rows[:, 5]

    def with_stds(self, stds: list[float]) -> Self:
        """The same means with these T standard deviations."""
        own = {key: value for key, value in self.config.items() if not key.startswith("_")}
        own["table"] = [[*row[:5], std] for row, std in zip(self.rows.tolist(), stds, strict=True)]
        return type(self)(**own)  # type: ignore[no-any-return]

    def transition(self, output: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """MATH (2.2): output and x_t (B,*S), t (B,) or (1,) integer in 0..T-1 -> mean (B,*S), std of x_{t+1}."""
        row = self._rows(x.device)[t].to(x.dtype).reshape(-1, 6, *[1] * (x.ndim - 1)).unbind(1)
        _, a_t, s_t, a_s, s_s, std = row
        x0 = self.x0hat(output, x, a_t, s_t)
        eps = (x - a_t * x0) / s_t
        direction = (s_s**2 - (self.config.eta * std_up(a_t, s_t, a_s, s_s)) ** 2).clamp_min(0).sqrt()
        mean = a_s * x0 + direction * eps
        if self.config.clip_sample:
            last = (t == self.steps - 1).reshape(-1, *[1] * (x.ndim - 1))
            mean = torch.where(last, mean.clamp(-1, 1), mean)
        return mean, std

    def level(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, like t (B,) integer in 0..T-1: x_t is ``alpha*x0 + sigma*eps``."""
        row = self._rows(t.device)[t]
        return row[:, 1], row[:, 2]

    def _rows(self, device: torch.device) -> Tensor:
        if self.rows.device != device:  # once: from then on they stay there
            self.rows = self.rows.to(device, torch.float32 if device.type == "mps" else None)  # mps has no float64
        return self.rows

    def x0hat(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean image that the network's output stands for, by prediction type (the table of MATH 2)."""
        kind, sigma_data = self.config.prediction_type, self.config.sigma_data
        if kind == "sample":
            return output
        if kind == "flow_prediction":
            return x - sigma * output
        if kind in ("v_prediction", "edm"):  # with c_skip = (sigma_data*alpha)^2 and c_out = sigma_data*sigma
            sign = 1 if kind == "edm" else -1
            return sigma_data**2 * alpha * x + sign * sigma_data * sigma * output  # type: ignore[no-any-return]
        return (x - sigma * (output if kind == "epsilon" else -sigma * output)) / alpha

    # What a diffusers pipeline calls.
    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Pipelines ask for some number of steps; there are T, so more means all of them, and fewer is refused.

        Raises:
            ValueError: fewer are asked for
        """
        if num_inference_steps is not None and num_inference_steps < self.steps:
            raise ValueError(f"num_inference_steps: these steps were learned together; give {self.steps} or more")
        self.timesteps = self.timesteps.to(device)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network sees x_t as it is."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generator | list[Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """One transition, drawn: model output and x_t (B,*S) at a timestep of the table -> x_{t+1} (B,*S).

        Without a generator the noise comes from torch's global one.

        Raises:
            ValueError: the timestep is none of the table's
        """
        matches = (self.timesteps.to(sample.device) == timestep).nonzero()
        if not len(matches):
            raise ValueError(f"timestep {timestep} is none of {self.timesteps.tolist()}")
        exact = torch.promote_types(sample.dtype, torch.float32)  # half precision is for networks alone
        means = model_output[:, : sample.shape[1]]  # what follows is a learned variance, which the table replaces
        mean, std = self.transition(means.to(exact), sample.to(exact), matches[0])
        noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        x_next = (mean + std * noise).to(sample.dtype)
        return SchedulerOutput(prev_sample=x_next) if return_dict else (x_next,)

    def __len__(self) -> int:
        return self.steps


def std_up(a_t: Tensor, s_t: Tensor, a_s: Tensor, s_s: Tensor) -> Tensor:
    """MATH (2.1), the ancestral std from level t to the less noisy s."""
    return s_s * (1 - (a_t * s_s / (a_s * s_t)) ** 2).clamp_min(0).sqrt()
