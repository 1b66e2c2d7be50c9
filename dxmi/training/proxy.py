"""A cheap figure while a run learns: it goes to metrics.jsonl, picks ``best/`` and may stop the run."""

from __future__ import annotations

import json
import math
from typing import Any

from accelerate.utils import broadcast_object_list

from dxmi.api import Evaluator
from dxmi.api.errors import require
from dxmi.api.evaluator import OffersMetrics, RanksHigher
from dxmi.api.files import whole_folder
from dxmi.config import ProxyConfig, build_plugin, plugins
from dxmi.data import Items, Stream
from dxmi.evaluation import KeptSamples, measure, noted
from dxmi.training.logbook import write
from dxmi.training.session import Session


class ProxyWatch:
    """What a run's proxies were so far. Every process takes part and knows the same.

    Args:
        session: the run
        settings: how often, over how many samples, and how long to wait

    Raises:
        ConfigError: there is no evaluator or nothing stored to measure against, or it has no option ``samples``
    """

    def __init__(self, session: Session, settings: ProxyConfig):
        self.session, self.settings = session, settings
        require(bool(session.run.evaluators), "proxy", "the run has no evaluators to take a metric of", "list one")
        require(isinstance(session.data, Items | Stream), "proxy", "it is for runs on stored data", "leave it out")
        judge = first_metric(session.config.resolved["evaluators"][0])
        self.judge = build_plugin(Evaluator, {**judge, "samples": settings.samples})  # type: ignore[type-abstract]
        self.history: list[tuple[int, float]] = []

    def reopen(self) -> None:
        """Take over what the rounds before a checkpoint have logged."""
        lines: list[str] = []
        file = self.session.out / "metrics.jsonl"
        if self.session.main and file.exists():
            lines = file.read_text().splitlines()
        found = [row for row in map(json.loads, lines) if "proxy" in row]
        # what is not finite was logged as null
        shared = [[(row["step"], math.inf if row["proxy"] is None else row["proxy"]) for row in found]]
        if self.session.accelerator.num_processes > 1:
            broadcast_object_list(shared)
        self.history = shared[0]

    def look(self, step: int) -> bool:
        """Measure the averaged weights after ``step`` rounds, keep them if they are the best; whether to stop."""
        session, data = self.session, self.session.data
        assert isinstance(data, Items | Stream)
        run = session.run
        drawn = (session.student(), run.sampler.steps, run.seed, session.accelerator)
        with noted(session.screen.note):
            found = measure([self.judge], data.reference(), KeptSamples(*drawn, batch_size=run.draw_batch))
        name, value = next(iter(found["metrics"].items()))
        higher = self.judge.HIGHER if isinstance(self.judge, RanksHigher) else ()
        score = -value if name.startswith(tuple(higher)) else value
        score = score if math.isfinite(score) else math.inf
        better = score < min((old for _, old in self.history), default=math.inf)
        self.history.append((step, score))
        told = {"proxy": score, f"proxy_{name}_n{found['samples']}": value}
        write(session, step, told)
        if session.main and better:
            save_best(session, {"step": step, **told})
        session.screen.tell(f"proxy {name} of {found['samples']} samples {value:.4g}{', the best so far' * better}")
        session.accelerator.wait_for_everyone()
        return self.stops()

    def best(self) -> int:
        """The round of the best proxy so far."""
        return min(self.history, key=lambda found: found[1])[0]

    def stops(self) -> bool:
        """Whether ``patience`` proxies came after the best one; those of the warm-up aside, which is no game yet."""
        patience = self.settings.patience
        if patience is None or not self.history:
            return False
        start = max(self.best(), self.session.run.game.warmup)
        return sum(step > start for step, _ in self.history) >= patience


def first_metric(evaluator: dict[str, Any]) -> dict[str, Any]:
    """The options of an evaluator for its first metric alone, where its class tells which ones there are."""
    kind = plugins.load("dxmi.evaluators", evaluator["name"])
    metrics = evaluator.get("metrics") or (kind.METRICS if isinstance(kind, OffersMetrics) else None)
    return {**evaluator, "metrics": [metrics[0]]} if metrics else evaluator


def save_best(session: Session, told: dict[str, float]) -> None:
    """The averaged sampler as a pipeline (or weights) in ``best/``, with what it scored; the one before goes after."""
    with whole_folder(session.out / "best", replace=True) as draft:
        session.average().save_pretrained(draft)
        (draft / "proxy.json").write_text(json.dumps(told, indent=2) + "\n")
