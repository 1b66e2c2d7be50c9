"""Write reference samples of particle systems, which have no exact sampler, beside their energies.

python examples/references/make_references.py dw4 lennard_jones_13      # two minutes each on one core

Half of the chains start compact, half spread out. MALA with a bounded drift brings them in, HMC does the rest. Starts
and steps know no direction and no order of the particles, so the law of the chains is right in that respect from the
start, however slowly they turn or exchange particles. What has to converge is what does not change with them: the
energy and the sorted pair distances. The JSON file beside the samples tells how well they did. The virial is an exact
check on top: at temperature 1 the mean of x . grad E(x) is the number of free coordinates, (n-1)d.
"""

import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import dxmi_plugins.energies.known as known
import torch
from dxmi_plugins.energies.known.mean_free import MeanFree
from dxmi_plugins.energies.known.particles import DW4, LennardJones, Particles
from dxmi_plugins.samplers.mcmc.hmc import HMC
from dxmi_plugins.samplers.mcmc.mala import MALA
from safetensors.torch import save
from torch import Tensor

from dxmi.chains import ChainSamples, convergence, run_chains

OUT = Path(known.__file__).parent / "references"
STARTS = (1.0, 3.0)

SYSTEMS = {
    "dw4": {
        "energy": DW4,
        "chains": 2000,
        "mala": {"steps": 4000, "step_size": 0.02, "drift_clip": 30.0},
        "hmc": {"steps": 15000, "step_size": 0.15, "leapfrog": 10, "warmup": 300},
    },
    "lennard_jones_13": {
        "energy": LennardJones,
        "chains": 1000,
        "mala": {"steps": 6000, "step_size": 0.001, "drift_clip": 300.0},
        "hmc": {"steps": 1500, "step_size": 0.02, "leapfrog": 15, "warmup": 200},
    },
}


def distances(x: Tensor) -> Tensor:
    """Sorted pair distances: (N,n,d) -> (N,n(n-1)/2)."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1)
    return (x[:, i] - x[:, j]).square().sum(2).sqrt().sort(1).values


def invariants(energy: Particles, x: Tensor) -> Tensor:
    """Energy and sorted pair distances: (N,n,d) -> (N,1+n(n-1)/2)."""
    return torch.cat([energy(x)[:, None], distances(x)], 1)


def chains(name: str, start: float, seed: int) -> ChainSamples:
    """The chains of one start; their states are coordinates z."""
    system = SYSTEMS[name]
    energy, n = MeanFree(system["energy"]()), system["chains"]
    rough = run_chains(energy, MALA(**system["mala"], start=start), n, seed=seed)
    return run_chains(energy, HMC(**system["hmc"]), n, seed=seed + 1, start=rough.samples)


def checked(name: str, runs: list[ChainSamples]) -> tuple[Tensor, dict]:
    """The samples of all runs, and what supports them."""
    energy = SYSTEMS[name]["energy"]()
    space = MeanFree(energy)
    ends = [space.embed(run.samples) for run in runs]
    found = [invariants(energy, x).double() for x in ends]
    difference = found[0].mean(0) - found[1].mean(0)
    error = sum(f.var(0) / len(f) for f in found).sqrt()
    traces = torch.cat([run.traces for run in runs], 1)
    along = invariants(energy, space.embed(traces.flatten(0, 1))).reshape(*traces.shape[:2], -1)
    told = convergence(along)
    energies, samples = torch.cat(found)[:, 0], torch.cat(ends).contiguous()
    virial = (samples * energy.with_gradient(samples)[1]).double().sum((1, 2))
    return samples, {
        "energy": {"mean": energies.mean().item(), "std": energies.std().item()},
        "energy_along_the_watched_chains": along[..., 0].double().mean().item(),
        "energy_of_each_start": [f[:, 0].mean().item() for f in found],
        "largest_z_between_starts": (difference / error).abs().max().item(),
        "virial": {
            "mean": virial.mean().item(),
            "standard_error": virial.std().item() / len(virial) ** 0.5,
            "exact": samples[0, 1:].numel(),
        },
        "r_hat_max": max(told["r_hat"]),
        "ess_bulk_min": min(told["ess_bulk"]),
        "watched_draws": told["draws"],
        "acceptance": [run.diagnostics["acceptance"] for run in runs],
        "step_size": [run.diagnostics["step_size"] for run in runs],
    }


def make(name: str) -> None:
    """Run, check and write one system."""
    begin, system = time.process_time(), SYSTEMS[name]
    runs = [chains(name, start, seed=10 * k) for k, start in enumerate(STARTS)]
    samples, told = checked(name, runs)
    provenance = {
        "command": f"python examples/references/make_references.py {name}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "dxmi": version("dxmi")},
        "samples": list(samples.shape),
        "starts": STARTS,
        "chains_of_each_start": system["chains"],
        "mala": system["mala"],
        "hmc": system["hmc"],
        "checks": "of energy and sorted pair distances, which no rotation or permutation changes",
        **told,
        "cpu_seconds": round(time.process_time() - begin),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.safetensors").write_bytes(save({"samples": samples}))
    (OUT / f"{name}.json").write_text(json.dumps(provenance, indent=2) + "\n")
    print(json.dumps(provenance, indent=2), flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or SYSTEMS:
        make(name)
