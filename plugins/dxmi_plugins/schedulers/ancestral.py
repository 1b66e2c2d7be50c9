"""One few-step ancestral scheduler for every teacher (MATH 2)."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor

from dxmi.api import ConfigError, Transition


def choose_nodes(nodes: str | list[int], steps: int, alphas: Tensor, sigmas: Tensor) -> list[int]:
    """``steps`` distinct timesteps out of a teacher's N levels (each (N,), index 0 the cleanest), noisiest first.

    trailing, leading: evenly spaced from the noisy or the clean end, as in diffusers.
    quadratic: squares of evenly spaced roots up to 0.8 N (FastDPM, arXiv:2106.00132; SFT-PG's and DxMI's "VAR").
    logsnr: evenly spaced in log(alpha^2/sigma^2), the cleanest level left out.

    Raises:
        ConfigError: the choice does not exist, or does not give that many distinct timesteps in 0..N-1
    """
    n = len(alphas)
    if not 1 <= steps <= n:
        raise ConfigError(f"steps: {steps} is not between 1 and the teacher's {n} levels")
    ratio = n / steps
    if isinstance(nodes, list):
        chosen = nodes
    elif nodes == "trailing":
        chosen = [round(n - k * ratio) - 1 for k in range(steps)]
    elif nodes == "leading":
        chosen = [k * (n // steps) for k in reversed(range(steps))]
    elif nodes == "quadratic":
        chosen = [int(r**2) for r in torch.linspace(math.sqrt(0.8 * n), 0, steps, dtype=torch.float64).tolist()]
    elif nodes == "logsnr":
        alphas = alphas.double().clamp_min(1e-6)  # a zero-terminal-SNR teacher has a level without signal
        log_snr = 2 * (alphas.log() - sigmas.double().log())
        wanted = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps + 1, dtype=torch.float64)[:-1]
        chosen = (log_snr[None] - wanted[:, None]).abs().argmin(1).tolist()
    else:
        raise ConfigError(f"nodes: '{nodes}' is not trailing, leading, quadratic, logsnr or a list of timesteps")
    if any(not isinstance(node, int) for node in chosen):
        raise ConfigError(f"nodes: {chosen} are not whole timesteps")
    if len(chosen) != steps or any(a <= b for a, b in zip([n, *chosen], [*chosen, -1], strict=True)):
        raise ConfigError(
            f"nodes: {chosen} are not {steps} falling timesteps in 0..{n - 1}; choose others or fewer steps"
        )
    return chosen


class AncestralScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """``T`` Gaussian transitions between noise levels of a teacher, MATH (2.1) and (2.2).

    Unbound (no ``table``), it only holds the choice of nodes; ``bind`` fills the table from a teacher's levels.
    A bound one runs in any diffusers pipeline that draws pixels, such as ``DDPMPipeline``.

    Args:
        steps: T
        nodes: trailing, leading, quadratic, logsnr, or a list of T of the teacher's timesteps, falling
        eta: 1 gives the ancestral (DDPM) means and stds, 0 the deterministic (DDIM) ones
        last_std: std of the last step, and least std of the others, in units of the data, whose range is 2
        clip_sample: clip the mean of the last step to [-1, 1], so that an energy sees what a picture can show
        prediction_type: what the network returns: epsilon, sample or v_prediction; set by ``bind``
        table: T rows [timestep, alpha_t, sigma_t, alpha_s, sigma_s, std] from noisy t to less noisy s; set by ``bind``
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        steps: int = 4,
        nodes: str | list[int] = "trailing",
        eta: float = 1.0,
        last_std: float = 2e-3,
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        table: list[list[float]] | None = None,
    ):
        if steps < 1:
            raise ConfigError(f"steps: {steps} steps cannot make a sample; give 1 or more")
        if not 0 <= eta <= 1 or last_std <= 0:
            raise ConfigError("eta lies in 0..1 and last_std is positive")
        if prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise ConfigError(f"prediction_type: '{prediction_type}' is not epsilon, sample or v_prediction")
        self.steps, self.eta, self.prediction_type = steps, eta, prediction_type
        if table is not None and (len(table) != steps or any(len(row) != 6 for row in table)):
            raise ConfigError(f"table: give {steps} rows of 6 numbers, or none")
        self.rows = torch.tensor(table or [], dtype=torch.float64).reshape(-1, 6)
        self.timesteps, self.stds = self.rows[:, 0].long(), self.rows[:, 5]

    def bind(self, alphas: Tensor, sigmas: Tensor, prediction_type: str) -> Self:
        """The same choice over a teacher's N levels (each (N,)), with the stds of (2.1). Raises ConfigError."""
        chosen = choose_nodes(self.config.nodes, self.steps, alphas, sigmas)
        a_t, s_t = alphas.double()[chosen], sigmas.double()[chosen]
        if prediction_type == "epsilon" and not a_t.all():
            raise ConfigError(
                f"nodes: at timestep {chosen[0]} this epsilon teacher sees pure noise; choose other nodes"
            )
        a_s, s_s = torch.cat([a_t[1:], torch.ones(1)]), torch.cat([s_t[1:], torch.zeros(1)])
        std = self.eta * std_up(a_t, s_t, a_s, s_s)
        std[-1] = 0
        std = std.clamp_min(self.config.last_std)
        table = torch.stack([torch.tensor(chosen, dtype=torch.float64), a_t, s_t, a_s, s_s, std], 1).tolist()
        return self._with(prediction_type=prediction_type, table=table)

    def with_stds(self, stds: list[float]) -> Self:
        """The same means with these T standard deviations."""
        return self._with(table=[[*row[:5], std] for row, std in zip(self.rows.tolist(), stds, strict=True)])

    def transition(self, output: Tensor, x: Tensor, t: Tensor) -> Transition:
        """MATH (2.2): network output and x_t (B,*S), t (B,) or (1,) integer in 0..T-1 -> the law of x_{t+1}."""
        if self.rows.device != x.device:
            self.rows = self.rows.to(x.device, torch.float32 if x.device.type == "mps" else None)  # mps has no float64
        row = self.rows[t].to(x.dtype).reshape(-1, 6, *[1] * (x.ndim - 1)).unbind(1)
        _, a_t, s_t, a_s, s_s, std = row
        x0 = self.x0hat(output, x, a_t, s_t)
        eps = (x - a_t * x0) / s_t
        direction = (s_s**2 - (self.eta * std_up(a_t, s_t, a_s, s_s)) ** 2).clamp_min(0).sqrt()
        mean = a_s * x0 + direction * eps
        if self.config.clip_sample:
            mean = torch.where(s_s == 0, mean.clamp(-1, 1), mean)
        return Transition(mean, std)

    def x0hat(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean image that the network's output stands for, by prediction type (the table of MATH 2)."""
        if self.prediction_type == "epsilon":
            return (x - sigma * output) / alpha
        return output if self.prediction_type == "sample" else alpha * x - sigma * output

    # What a diffusers pipeline calls.
    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Pipelines ask for some number of steps; there are T, so more means all of them, and fewer is refused."""
        if not len(self.rows):
            raise ValueError("this scheduler has no table yet; bind it to a teacher's noise levels")
        if num_inference_steps is not None and num_inference_steps < self.steps:
            raise ValueError(f"num_inference_steps: these steps were learned together; give {self.steps} or more")
        self.timesteps = self.timesteps.to(device)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network sees x_t as it is."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generator | list[Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """One transition, drawn: model output and x_t (B,*S) at a timestep of the table -> x_{t+1} (B,*S)."""
        matches = (self.timesteps.to(sample.device) == timestep).nonzero()
        if not len(matches):
            raise ValueError(f"timestep {timestep} is none of {self.timesteps.tolist()}")
        found = matches[0]
        mean, std = self.transition(model_output, sample, found)
        noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        x_next = mean + std * noise
        return SchedulerOutput(prev_sample=x_next) if return_dict else (x_next,)

    def __len__(self) -> int:
        return self.steps

    def _with(self, **changes: Any) -> Self:
        own = {k: v for k, v in self.config.items() if not k.startswith("_")}
        return type(self)(**{**own, **changes})  # type: ignore[no-any-return]


def std_up(a_t: Tensor, s_t: Tensor, a_s: Tensor, s_s: Tensor) -> Tensor:
    """MATH (2.1), the ancestral std from level t to the less noisy s."""
    return s_s * (1 - (a_t * s_s / (a_s * s_t)) ** 2).clamp_min(0).sqrt()
