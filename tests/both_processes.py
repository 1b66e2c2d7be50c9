"""What each of two processes does: ``torchrun --nproc_per_node 2 tests/both_processes.py FOLDER``.

The folder has the configs ``images.yaml``, ``contrast.yaml`` and ``replay.yaml`` and a ``teacher``; each process leaves
what it has.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from conftest import DIGITS, EXTRACTOR
from dxmi_plugins.evaluators.extractors.choose import make_extractor
from dxmi_plugins.evaluators.fidelity.passes import KeptMoments, Pass, go_through

import dxmi
from dxmi.api.noise import CHUNK
from dxmi.config import Checked, TrainConfig, read_yaml
from dxmi.evaluation import KeptSamples
from dxmi.pipelines import PipelineDraw, load_pipeline
from dxmi.training import checkpoint
from dxmi.training.finish import finish
from dxmi.training.session import Session
from dxmi.training.train import play, start

N = CHUNK + 40
ASKED = {"metrics": ["fid", "kid", "prc"], "extractor": str(EXTRACTOR), "n": N, "seeds": [0], "steps": [2]}


def played(folder, name):
    session = Session(Checked(TrainConfig, read_yaml(folder / f"{name}.yaml")), folder / name)
    start(session, None, False)
    play(session, None)
    return session


def images(folder):
    """The weights that a run ends with, and the squared noise that it has learned."""
    session = played(folder, "images")
    finish(session, None)
    players = [session.run.energy, session.run.sampler, session.average()]
    return [p.detach() for player in players for p in player.parameters()] + [session.game.state.s2]


def contrast(folder):
    """The weights of all that learns, the sampler's average, and the paths of its own."""
    session = played(folder, "contrast")
    players = session.game.players
    learned = [session.run.energy, session.run.sampler, players.score, session.average()]
    return [p.detach() for player in learned for p in player.parameters()], session.game.warm_start.xs


def replay(folder):
    """The weights, the states that are kept, and those of the last checkpoint."""
    session = played(folder, "replay")
    state = [p.detach() for player in (session.run.value, session.run.sampler) for p in player.parameters()]
    kept, session.game.buffer.states = session.game.buffer.states, None
    checkpoint.restore(session.accelerator, session.out)
    return state, kept, session.game.buffer.states


def evaluation(teacher, out):
    """The whole of an evaluation: its rows, the samples, the moments of their features."""
    report = dxmi.evaluate(teacher, DIGITS, **ASKED, out=out)
    accelerator, judge = Accelerator(), make_extractor(str(EXTRACTOR))
    samples = KeptSamples(PipelineDraw(load_pipeline(str(teacher)), accelerator.device), 2, 0, accelerator)
    kept, rows = KeptMoments(judge.dimension, N), samples.rows(N)
    go_through(samples.batches(N), rows, [Pass(judge, [kept])], 256)
    moments = kept.reduced(samples)[0].gaussian()
    return {"rows": report.rows, "samples": samples(N), **moments._asdict()}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    accelerator = Accelerator()
    found = {"processes": accelerator.num_processes, "replay": replay(place)}
    found["contrast"] = contrast(place)
    found["evaluation"] = evaluation(place / "teacher", place / "two")
    found["images"] = images(place)  # last, since the end of a run parts the processes
    torch.save(found, place / f"{accelerator.process_index}.pt")
