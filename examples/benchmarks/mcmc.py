"""Steps per CPU-second of chains on a two-dimensional eight-mode mixture: dxmi against torchebm and blackjax.

    pip install '.[peers]'
    python examples/benchmarks/mcmc.py --out examples/benchmarks/mcmc.json

Everything runs in this one process, pinned to one core and in turns, so that other jobs on the machine slow all alike;
ratios are what counts. torchebm gets its natural code: an energy written as a log-sum-exp, differentiated by
autograd. blackjax's kernels are jitted whole loops over chains by vmap. The last comparison is a neural energy
(2-128-128-1) against a loop written by hand around torch.autograd.grad.
"""

import argparse
import json
import math
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
import torch
from dxmi_plugins.energies.known.gaussian_mixture import GaussianMixture
from dxmi_plugins.energies.mlp import MLPEnergy
from dxmi_plugins.samplers.mcmc.hmc import HMC
from dxmi_plugins.samplers.mcmc.langevin import Langevin
from dxmi_plugins.samplers.mcmc.mala import MALA

from dxmi.api import Cost, Energy, Sampler
from dxmi.chains import run_chains, walk

MODES, STD, STEP, LEAPFROG = 8, 0.1, 0.002, 10
MEANS = [[2 * math.cos(2 * math.pi * k / MODES), 2 * math.sin(2 * math.pi * k / MODES)] for k in range(MODES)]
Run = Callable[[int], None]


def ours(energy: Energy, sampler: Sampler, chains: int) -> Run:
    """Dxmi's own loop."""

    def run(steps: int) -> None:
        sampler.steps = steps
        for _ in walk(sampler, Cost(energy, None, steps), (chains, 2)):
            pass

    return run


def torchebm_peers(chains: int) -> dict[str, Run]:
    from torchebm.core import BaseModel
    from torchebm.samplers import HamiltonianMonteCarlo, LangevinDynamics

    class Mixture(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("means", torch.tensor(MEANS))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            squares = (x[:, None] - self.means).square().sum(2)
            return -torch.logsumexp(-squares / (2 * STD**2), 1)

    langevin = LangevinDynamics(Mixture(), step_size=STEP)
    hmc = HamiltonianMonteCarlo(Mixture(), step_size=STEP**0.5, n_leapfrog_steps=LEAPFROG)
    return {
        name: lambda steps, s=sampler: s.sample(x=torch.randn(chains, 2), n_steps=steps)  # type: ignore[misc]
        for name, sampler in {"langevin": langevin, "hmc": hmc}.items()
    }


def blackjax_peers(chains: int) -> dict[str, Run]:
    import blackjax
    import jax
    import jax.numpy as jnp

    means = jnp.array(MEANS)

    def log_density(x):
        return jax.nn.logsumexp(-jnp.square(x - means).sum(1) / (2 * STD**2))

    def runner(kernel) -> Run:
        @jax.jit
        def block(states, key):
            def body(states, key):
                return jax.vmap(kernel.step)(jax.random.split(key, chains), states)[0], None

            return jax.lax.scan(body, states, jax.random.split(key, 50))[0]

        first = jax.vmap(kernel.init)(jax.random.normal(jax.random.key(0), (chains, 2)))
        block(first, jax.random.key(1))  # compiles

        def run(steps: int) -> None:
            states = first
            for k in range(steps // 50):
                states = block(states, jax.random.key(k))
            jax.block_until_ready(states)

        return run

    return {
        "mala": runner(blackjax.mala(log_density, STEP)),
        "hmc": runner(blackjax.hmc(log_density, STEP**0.5, jnp.ones(2), LEAPFROG)),
    }


def bare_loop(energy: torch.nn.Module, chains: int) -> Run:
    """Langevin on a neural energy as one writes it by hand."""

    def run(steps: int) -> None:
        x = torch.randn(chains, 2)
        for _ in range(steps):
            x.requires_grad_()
            (g,) = torch.autograd.grad(energy(x).sum(), x)
            x = (x - STEP * g + math.sqrt(2 * STEP) * torch.randn_like(x)).detach()

    return run


def speeds(runs: dict[str, tuple[Run, int]], rounds: int) -> dict[str, float]:
    """Steps per CPU-second, the median over ``rounds`` turns; each turn runs everyone once."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run, steps in runs.values():
        run(max(50, steps // 10))
    for _ in range(rounds):
        for name, (run, steps) in runs.items():
            start = time.process_time()
            run(steps)
            found[name].append(steps / (time.process_time() - start))
    return {name: round(statistics.median(all_), 1) for name, all_ in found.items()}


def scaling(energy: Energy) -> list[dict[str, float]]:
    """CPU time of a step of one chain, and memory, as chains and steps grow; whole runs with their diagnostics."""
    rows = []
    run_chains(energy, MALA(steps=10, step_size=STEP), 100)  # imports what diagnostics need
    for chains, steps in ((10_000, 100), (10_000, 1000), (100_000, 100), (1_000_000, 100)):
        start = time.process_time()
        run_chains(energy, MALA(steps=steps, step_size=STEP), chains)
        spent = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"chains": chains, "steps": steps, "cpu_ns": round(spent / chains / steps * 1e9, 1)})
        rows[-1]["peak_gib"] = round(peak, 2)
        print(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    mixture = GaussianMixture(means=MEANS, covariances=STD**2)
    torch.manual_seed(0)
    network = MLPEnergy(width=128, depth=2)
    network(torch.zeros(1, 2))
    scaled = scaling(mixture)  # first, while nothing else has taken memory
    runs: dict[str, tuple[Run, int]] = {
        "dxmi langevin": (ours(mixture, Langevin(step_size=STEP), given.chains), 1000),
        "dxmi mala": (ours(mixture, MALA(step_size=STEP), given.chains), 500),
        "dxmi hmc": (ours(mixture, HMC(step_size=STEP**0.5, leapfrog=LEAPFROG), given.chains), 100),
        "dxmi langevin, neural": (ours(network, Langevin(step_size=STEP), given.chains), 30),
        "bare loop, neural": (bare_loop(network, given.chains), 30),
    }
    for peer, build in (("torchebm", torchebm_peers), ("blackjax", blackjax_peers)):
        try:
            runs |= {f"{peer} {name}": (run, 100) for name, run in build(given.chains).items()}
        except ImportError:
            print(f"{peer} is not installed: pip install '.[peers]'")
    found = speeds(runs, given.rounds)
    pairs = [
        ("dxmi langevin", "torchebm langevin"),
        ("dxmi hmc", "torchebm hmc"),
        ("dxmi mala", "blackjax mala"),
        ("dxmi hmc", "blackjax hmc"),
        ("dxmi langevin, neural", "bare loop, neural"),
    ]
    ratios = {f"{a} / {b}": round(found[a] / found[b], 2) for a, b in pairs if b in found}
    for name, value in {**found, **ratios}.items():
        print(f"{name:<48} {value}")
    if given.out:
        facts = {"chains": given.chains, "machine": platform.machine(), "python": platform.python_version()}
        report = {**facts, **versions(), "steps_per_cpu_second": found, **ratios, "mala_scaling": scaled}
        given.out.write_text(json.dumps(report, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Of what was compared."""
    found = {}
    for package in ("dxmi", "torch", "torchebm", "blackjax", "jax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


if __name__ == "__main__":
    main()
