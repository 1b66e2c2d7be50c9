"""Few ancestral steps on nodes among the noise levels of any teacher (MATH 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dxmi.api import ConfigError, Levels, Schedule
from dxmi_plugins.schedulers.few_step import FewStepScheduler, std_up

WIDTH = 3.5
"""of the range of log-SNR, around 0, whose midpoint is the node of one step; for T steps it is sqrt(T) times as wide"""


class AncestralScheduler:
    """Chooses T nodes among a teacher's noise levels; between them go the Gaussian steps of MATH (2.1) and (2.2).

    Args:
        steps: T
        nodes: trailing, leading, quadratic, logsnr, midpoints (of T equal parts of 3.5*sqrt(T) of log-SNR around 0:
            where the teacher decides what an image shows), a list of T of the teacher's N levels, falling in 0..N-1
            (the timesteps of DDPM teachers), or for EDM and variance-exploding teachers karras
        eta: 1 gives the ancestral (DDPM) means and stds, 0 the deterministic (DDIM) ones
        last_std: std of the last step, and least std of the others, in units of the data, whose range is 2
        clip_sample: clip the mean of the last step to [-1, 1], so that an energy sees what a picture can show; latents
            are never clipped
        rho: how much closer the karras nodes lie where there is little noise
        extra_node: whether the last step ends at the teacher's least noise, with the ancestral std, not at the data;
            for karras, as in the paper's runs of 4 steps
        logsnr_shift: added to the log-SNR of the midpoints; negative ones have more noise, as large images need, whose
            pixels say the same many times (Hoogeboom et al. 2023, arXiv:2301.11093)

    Raises:
        ConfigError: an option is out of its range
    """

    def __init__(
        self,
        steps: int = 4,
        nodes: str | list[int] = "trailing",
        eta: float = 1.0,
        last_std: float = 2e-3,
        clip_sample: bool = True,
        rho: float = 7.0,
        extra_node: bool = False,
        logsnr_shift: float = 0.0,
    ):
        if steps < 1:
            raise ConfigError("steps", f"{steps} steps cannot make a sample", "give 1 or more")
        for key, value, fits in (("eta", eta, 0 <= eta <= 1), ("last_std", last_std, last_std > 0)):
            if not fits:
                raise ConfigError(key, f"{value} is out of range", "eta lies in 0..1 and last_std is positive")
        if rho <= 0:
            raise ConfigError("rho", f"{rho} is not positive")
        if extra_node and nodes != "karras":
            raise ConfigError("extra_node", f"nodes '{nodes}' have none", "set nodes: karras or leave it out")
        if extra_node and eta == 0:
            raise ConfigError("extra_node", "without noise (eta: 0) it is of no use", "leave it out")
        if logsnr_shift and nodes != "midpoints":
            raise ConfigError("logsnr_shift", f"nodes '{nodes}' have none", "set nodes: midpoints or leave it out")
        self.steps, self.nodes, self.eta, self.last_std = steps, nodes, eta, last_std
        self.clip_sample, self.rho, self.extra_node, self.logsnr_shift = clip_sample, rho, extra_node, logsnr_shift

    def bind(self, levels: Levels) -> Schedule:
        """The steps over a teacher's levels, with the stds of (2.1).

        Raises:
            ConfigError: there are no such nodes among the levels
        """
        timesteps, a_t, s_t = self._choose(levels)
        end = torch.zeros(1, dtype=torch.float64)
        if self.extra_node:
            timesteps, a_t, s_t, end = timesteps[:-1], a_t[:-1], s_t[:-1], (s_t / a_t)[-1:]
        if levels.prediction_type in ("epsilon", "score") and not a_t.all():
            raise ConfigError(
                "nodes",
                f"at timestep {timesteps[0]:g} this {levels.prediction_type} teacher sees pure noise",
                "choose other nodes",
            )
        a_s, s_s = torch.cat([a_t[1:], torch.ones(1)]), torch.cat([s_t[1:], end])
        std = self.eta * std_up(a_t, s_t, a_s, s_s)
        least = torch.full_like(std, self.last_std)
        if self.extra_node:
            least[-1] = 0
        exploding = bool((levels.alphas == 1).all())
        return FewStepScheduler(  # type: ignore[no-any-return]
            table=torch.stack([timesteps, a_t, s_t, a_s, s_s, std.maximum(least)], 1).tolist(),
            prediction_type=levels.prediction_type,
            sigma_data=levels.sigma_data or 1.0,
            eta=self.eta,
            clip_sample=self.clip_sample and levels.bounded,
            init_noise_sigma=float(s_t[0]) if exploding else 1.0,
        )

    def _choose(self, levels: Levels) -> tuple[Tensor, Tensor, Tensor]:
        """Timesteps, alphas and sigmas of the nodes, noisiest first, each (T,) or with the extra node (T+1,)."""
        timesteps, alphas, sigmas = (part.double() for part in levels[:3])
        if self.nodes == "karras":
            return karras(self.steps + self.extra_node, levels, self.rho)
        chosen = choose_nodes(self.nodes, self.steps, alphas, sigmas, self.logsnr_shift)
        return timesteps[chosen], alphas[chosen], sigmas[chosen]


def karras(count: int, levels: Levels, rho: float) -> tuple[Tensor, Tensor, Tensor]:
    """``count`` nodes evenly spaced in ``s^(1/rho)``, s = sigma/alpha (Karras et al. 2022, eq. 5): three of (count,).

    They need not be levels: timesteps in between are linear in log s, as an EDM network's are everywhere.

    Raises:
        ConfigError: the teacher knows no noise but that of its levels, or there is one node only
    """
    if levels.sigma_data is None and not (levels.alphas == 1).all():
        raise ConfigError("nodes", "karras is for EDM and variance-exploding teachers", "choose trailing or logsnr")
    if count < 2:
        raise ConfigError("steps", "karras nodes go from the most noise to the least", "give 2 steps or more")
    s = levels.sigmas.double() / levels.alphas.double()
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    nodes = (s[-1] ** (1 / rho) + ramp * (s[0] ** (1 / rho) - s[-1] ** (1 / rho))) ** rho
    nodes[0], nodes[-1] = s[-1], s[0]  # to the last digit
    above = torch.searchsorted(s, nodes).clamp(1, len(s) - 1)
    share = (nodes / s[above - 1]).log() / (s[above] / s[above - 1]).log()
    timesteps = torch.lerp(levels.timesteps.double()[above - 1], levels.timesteps.double()[above], share)
    alphas = torch.ones_like(nodes) if levels.sigma_data is None else (nodes**2 + levels.sigma_data**2) ** -0.5
    return timesteps, alphas, alphas * nodes


def choose_nodes(
    nodes: str | list[int], steps: int, alphas: Tensor, sigmas: Tensor, logsnr_shift: float = 0.0
) -> list[int]:
    """``steps`` distinct of a teacher's N levels (each (N,), index 0 the cleanest), noisiest first.

    trailing, leading: evenly spaced from the noisy or the clean end, as in diffusers.
    quadratic: squares of evenly spaced roots up to 0.8 N (FastDPM, arXiv:2106.00132; SFT-PG's and DxMI's "VAR").
    logsnr: evenly spaced in log(alpha^2/sigma^2), the cleanest level left out.
    midpoints: of equal parts of log(alpha^2/sigma^2) from -1.75*sqrt(T) to 1.75*sqrt(T), shifted by ``logsnr_shift``.

    Raises:
        ConfigError: the choice does not exist, or does not give that many distinct levels in 0..N-1
    """
    n = len(alphas)
    if not 1 <= steps <= n:
        raise ConfigError("steps", f"{steps} is not between 1 and the teacher's {n} levels")
    ratio = n / steps
    log_snr = log_snrs(alphas, sigmas)
    if isinstance(nodes, list):
        chosen = nodes
    elif nodes == "trailing":
        chosen = [round(n - k * ratio) - 1 for k in range(steps)]
    elif nodes == "leading":
        chosen = [k * (n // steps) for k in reversed(range(steps))]
    elif nodes == "quadratic":
        chosen = [int(r**2) for r in torch.linspace(math.sqrt(0.8 * n), 0, steps, dtype=torch.float64).tolist()]
    elif nodes == "logsnr":
        even = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps + 1, dtype=torch.float64)
        chosen = nearest(log_snr, even[:-1])
    elif nodes == "midpoints":
        chosen = nearest(log_snr, WIDTH * math.sqrt(steps) * ((torch.arange(steps) + 0.5) / steps - 0.5) + logsnr_shift)
    else:
        known = "trailing, leading, quadratic, logsnr, midpoints, karras or a list of levels"
        raise ConfigError("nodes", f"'{nodes}' is not {known}")
    if any(not isinstance(node, int) for node in chosen):
        raise ConfigError("nodes", f"{chosen} are not whole timesteps")
    if len(chosen) != steps or any(a <= b for a, b in zip([n, *chosen], [*chosen, -1], strict=True)):
        raise ConfigError(
            "nodes", f"{chosen} are not {steps} falling timesteps in 0..{n - 1}", "choose others or fewer steps"
        )
    return chosen


def log_snrs(alphas: Tensor, sigmas: Tensor) -> Tensor:
    """``log(alpha^2/sigma^2)`` (N,), float64; finite at a level without signal, as zero-terminal-SNR teachers have."""
    return 2 * (alphas.double().clamp_min(1e-6).log() - sigmas.double().log())


def nearest(values: Tensor, wanted: Tensor) -> list[int]:
    """The indices of ``values`` (N,) that come nearest to each of ``wanted`` (T,)."""
    chosen: list[int] = (values[None] - wanted[:, None]).abs().argmin(1).tolist()
    return chosen
