"""Contract checks for authors of plugins, as in ``check_energy(lambda: Ring(radius=2.0), shape=(2,))``.

Each checks fresh plugins as they are built, on the GPU too if there is one, and raises AssertionError with the reason.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from dxmi.api import Cost, Energy, Evaluator, ExactDraws, GaussianSampler, Levels, Noising, Sampler, Scheduler
from dxmi.api.gaussian_sampler import ValueGuided
from dxmi.api.noise import randn
from dxmi.api.sampler import Transition
from dxmi.chains import rollout
from dxmi.game.rollouts import transitions

PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}


@contextmanager
def _contract(kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a plugin raises when it is used as the contract says is a breach of it
        prefix = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        raise AssertionError(f"{kind}: {prefix}{error}") from error


@_contract("energy")
def check_energy(build: Callable[[], Energy], shape: tuple[int, ...]) -> None:
    """An energy or value of events of shape S: one finite float a row, with gradients, restored by its state_dict."""
    for x in _noises(shape):
        energy, loaded = build().to(x.device), build().to(x.device)
        _require(energy.event_shape in (None, tuple(shape)), f"event_shape is {energy.event_shape}, not {tuple(shape)}")
        _energies(energy, x[:1])  # one squeeze too many shows with one row only
        first, again = (_energies(energy, y)[:1] for y in (x, x[:1].expand_as(x)))
        _same(first, again, "a row depends on the other rows, or on chance")
        _disturb(energy)
        e = _energies(energy, x.requires_grad_())
        _check_gradients([(e * torch.randn_like(e)).sum()], {"x": x, **dict(energy.named_parameters())})
        loaded.load_state_dict(energy.state_dict())
        _same(e, _energies(loaded, x), "another with the same state_dict differs")
        _check_own_gradient(energy, x)
        _check_sample(energy, x)


@_contract("sampler")
def check_sampler(build: Callable[[], Sampler], shape: tuple[int, ...]) -> None:
    """A chain over events of shape S: its shapes, noise, copies and files; the law of its steps if it is Gaussian."""
    for like in _noises(shape):
        sampler, original, loaded = (build().to(like.device) for _ in range(3))
        _require(type(sampler.steps) is int and sampler.steps > 0, f"steps is {sampler.steps!r}, not a positive int")
        _chain(sampler, like[:1])
        xs = _chain(sampler, like)
        _require(len(sampler.decode(xs[-1])) == len(like), "decode does not keep the number of rows")
        _check_noise(sampler, like)
        twin, before = copy.deepcopy(original), _chain(original, like, seed=0)  # the moving average is a deep copy
        _disturb(original)
        _same(before, _chain(twin, like, seed=0), "a deep copy differs, or changes with the original")
        _disturb(sampler)
        if isinstance(sampler, GaussianSampler):
            laws = [_moments(sampler(x, t, _cost, None), x, int(t[0])) for x, t, _ in transitions(xs)]
            losses = [(torch.randn_like(m) * m + torch.randn_like(m) * std).sum() for m, std in laws]
            if isinstance(sampler, ValueGuided):
                losses = [sampler.start_loss(_cost, tuple(like.shape))]
                _check_costs(sampler, sampler, xs)
            _check_gradients(losses, dict(sampler.named_parameters()))
        loaded.load_state_dict(sampler.state_dict())
        _same(_chain(sampler, like, seed=0), _chain(loaded, like, seed=0), "another with the same state_dict differs")
        with tempfile.TemporaryDirectory() as folder:
            sampler.save_pretrained(Path(folder) / "product")
            files = [path.name for path in Path(folder).rglob("*") if path.is_file()]
        saved = files and not {Path(name).suffix for name in files} & PICKLES
        _require(bool(saved), f"save_pretrained has to write files and no pickles, not {files}")


@_contract("scheduler")
def check_scheduler(build: Callable[[], Scheduler]) -> None:
    """Transitions at the timesteps it chooses from a variance-preserving teacher's 1000 levels, of linear betas."""
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    for x in _noises((1, 8, 8)):
        levels = Levels(torch.arange(1000), abar.sqrt(), (1 - abar).sqrt(), "epsilon")
        bound: Any = build().bind(levels)
        _require(len(bound.timesteps) > 0, "it has no timesteps once it is bound")
        means, stds = _scheduled(bound, x)
        wanted = stds * 0.5 + 0.1
        changed = bound.with_stds(wanted[:, 0, 0, 0, 0].tolist())
        kept, given = _scheduled(changed, x)
        _same(kept, means, "with_stds changes the means")
        _same(given, wanted, "with_stds gives other stds")
        _same(_scheduled(bound, x)[1], stds, "with_stds changes the scheduler it is called on")
        if hasattr(changed, "save_pretrained") and hasattr(changed, "from_pretrained"):  # a diffusers ConfigMixin
            with tempfile.TemporaryDirectory() as folder:
                changed.save_pretrained(folder)
                again = _scheduled(type(changed).from_pretrained(folder), x)
            _same(torch.cat(again), torch.cat([kept, given]), "another after save_pretrained, from_pretrained differs")


@_contract("evaluator")
def check_evaluator(build: Callable[[], Evaluator], reference: Dataset[Tensor], draw: Callable[[int], Tensor]) -> None:
    """Samples, ``draw(n) -> (n,*S)``, against a reference: finite floats by name, always the same, and a JSON stamp."""
    drawn: list[tuple[Tensor, Tensor]] = []

    @cache  # a run draws once and shows every evaluator the same tensor
    def once(n: int) -> Tensor:
        samples = draw(n)
        drawn.append((samples, samples.clone()))
        return samples

    evaluator = build()
    found = evaluator(once, reference)
    _require(isinstance(found, dict) and bool(found), f"it returns {found!r}, not named numbers")
    for key, value in found.items():
        _require(isinstance(value, int | float) and math.isfinite(value), f"{key}: {value!r} is no finite float")
    for again in (evaluator(once, reference), build()(once, reference)):
        close = [math.isclose(v, again.get(k, math.nan), rel_tol=1e-4, abs_tol=1e-6) for k, v in found.items()]
        _require(all(close) and len(again) == len(found), f"two calls differ: {found} and {again}")
    _require(all(torch.equal(a, b) for a, b in drawn), "it writes into the samples it is given")
    stamp = evaluator.stamp()
    _require(json.loads(json.dumps(stamp, allow_nan=False)) == stamp, f"JSON changes its stamp {stamp}")


def _require(condition: bool, complaint: str) -> None:
    if not condition:  # unlike an assert statement, python -O does not silence it
        raise AssertionError(complaint)


def _noises(shape: Sequence[int]) -> list[Tensor]:
    noise = torch.randn((4, *shape), generator=Generator().manual_seed(0))
    return [noise, noise.cuda()] if torch.cuda.is_available() else [noise]


def _fits(out: Tensor, shape: Sequence[int], like: Tensor, what: str) -> Tensor:
    found, expected = (tuple(out.shape), out.dtype, out.device), (tuple(shape), like.dtype, like.device)
    _require(found == expected, f"{what} is {found}, not {expected}")
    _require(bool(out.isfinite().all()), f"{what} is not finite")
    return out


def _same(a: Tensor, b: Tensor, complaint: str) -> None:
    _require(torch.allclose(a, b, rtol=1e-3, atol=1e-4), f"{complaint}, by up to {(a - b).abs().max().item():.3g}")


@torch.no_grad()
def _disturb(module: nn.Module) -> None:
    for p in (p for p in module.parameters() if p.requires_grad):  # no zero shall be a mere initial value
        p.add_((0.1 * p.abs().mean() + 0.01) * torch.randn_like(p))


def _check_gradients(losses: list[Tensor], tensors: dict[str, Tensor]) -> None:
    for loss in losses:
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
    for name, tensor in ((k, v) for k, v in tensors.items() if v.requires_grad and v.numel()):
        reached = tensor.grad is not None and bool(tensor.grad.isfinite().all() and tensor.grad.any())
        _require(reached, f"no finite gradient other than zero reaches {name}")


def _check_costs(sampler: Sampler, guided: ValueGuided, xs: Tensor) -> None:
    for x, t, x_next in transitions(xs):
        _fits(guided.running_cost(x, t, sampler(x, t, _cost)), (len(x),), x, f"the running cost of step {int(t[0])}")
        if isinstance(sampler, Noising):
            _moments(sampler.noising(x_next, t), x_next, int(t[0]))


def _check_own_gradient(energy: Energy, x: Tensor) -> None:
    t = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for own, autograd, what in zip(
        energy.with_gradient(x, t), Energy.with_gradient(energy, x, t), ("energy", "gradient"), strict=True
    ):
        _fits(own, autograd.shape, x, f"with_gradient's {what}")
        _same(own, autograd, f"with_gradient's {what} is not autograd's")
        _require(not own.requires_grad, f"with_gradient's {what} is not detached")


def _check_sample(energy: Energy, x: Tensor) -> None:
    if not isinstance(energy, ExactDraws):
        return
    state = torch.get_rng_state()
    a, b, c = (energy.sample(4, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    _fits(a, x.shape, x, "sample(4)")
    _require(torch.equal(a, b) and not torch.equal(a, c), "sample does not follow its generator")
    _require(torch.equal(state, torch.get_rng_state()), "sample draws from torch's global generator")


def _energies(energy: Energy, x: Tensor) -> Tensor:
    t = torch.arange(len(x), device=x.device) % 2  # steps 0 and 1 exist whatever T is
    return _fits(energy(x, t, None), (len(x),), x, f"the energy of x {tuple(x.shape)}")


class _Normal(Energy):
    def forward(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        return x.square().flatten(1).sum(1) / 2

    def conditional(self, x: Tensor, i: int, generator: Generator | None = None) -> Tensor:
        return randn((len(x),), x, generator)


_cost = Cost(_Normal(), value=None, steps=1)  # without a value it is the energy at every t


def _chain(sampler: Sampler, like: Tensor, seed: int | None = None) -> Tensor:
    xs = rollout(sampler, _cost, tuple(like.shape), None if seed is None else Generator().manual_seed(seed))
    return _fits(xs, (sampler.steps + 1, *like.shape), like, "the chain x_0..x_T")


@torch.no_grad()
def _check_noise(sampler: Sampler, like: Tensor) -> None:
    state, xs, moved = torch.get_rng_state(), _chain(sampler, like, seed=0), []
    _same(xs, _chain(sampler, like, seed=0), "two chains with the same seed differ")
    _require(not torch.equal(xs[0], _chain(sampler, like, seed=1)[0]), "x_0 is the same with every seed")
    for x, t, _ in transitions(xs):
        runs = (x, 0), (x[:1].expand_as(x), 0), (x, 1)
        a, b, c = (sampler.step(y, t, _cost, Generator().manual_seed(seed)) for y, seed in runs)
        if sampler.independent and int(t[0]) >= sampler.warmup:  # a warm-up may adapt to all chains together
            _same(a[:1], b[:1], "a row depends on the other rows")
        moved.append(not torch.equal(a, c))
    _require(any(moved) or not isinstance(sampler, GaussianSampler), "its steps are the same with every seed")
    _require(torch.equal(state, torch.get_rng_state()), "it draws from torch's global generator though it is given one")


def _moments(law: Transition, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
    mean = _fits(law.mean, x.shape, x, f"the mean of step {step}")
    std = _fits(law.std.expand_as(mean), x.shape, x, f"the std of step {step}")  # raises unless it broadcasts
    _require(bool((std > 0).all()), f"the std of step {step} is not positive")
    return mean, std


def _scheduled(scheduler: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    times = [torch.full((len(x),), k, device=x.device) for k in range(len(scheduler.timesteps))]
    laws = ((Transition(*scheduler.transition(x.flip(0), x, t)), int(t[0])) for t in times)
    means, stds = zip(*(_moments(law, x, k) for law, k in laws), strict=True)
    return torch.stack(means), torch.stack(stds)
