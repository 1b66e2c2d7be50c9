"""Samples that processes share, for evaluators: each goes through its part. Stored items are the simplest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from dxmi.api.noise import CHUNK
from dxmi.data import Items, permutation


class SharedSamples(ABC):
    """A process's share of n events: chunks of ``CHUNK``, each process the next one in turn."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.drawn = accelerator, 0
        self.seen: Callable[[int], object] = lambda k: None
        """hears of every k events of this process's that are there, for a bar on the screen"""

    @abstractmethod
    def chunks(self, n: int) -> Iterator[Tensor]:
        """The events of ``rows(n)``, a chunk at a time: i*CHUNK up to (i+1)*CHUNK, or n, for each i of ``mine``."""

    def mine(self, n: int) -> range:
        """The numbers of this process's chunks."""
        return range(self.accelerator.process_index, -(-n // CHUNK), self.accelerator.num_processes)

    def __call__(self, n: int) -> Tensor:
        """All events (n,*S), on the CPU of every process."""
        parts = list(zip(self.mine(n), self.batches(n), strict=False))
        if self.accelerator.num_processes > 1:
            parts = gather_object(parts)
        return torch.cat([part for _, part in sorted(parts, key=lambda pair: pair[0])])

    def rows(self, n: int) -> Tensor:
        """Which of n events are this process's, (k,)."""
        return self.share(n)

    def share(self, n: int) -> Tensor:
        """Which of n items of anything are this process's, (k,): chunks again."""
        whole = [range(i * CHUNK, min((i + 1) * CHUNK, n)) for i in self.mine(n)]
        return torch.tensor(list(chain.from_iterable(whole)), dtype=torch.long)

    def batches(self, n: int) -> Iterator[Tensor]:
        """The events of ``rows(n)``, a chunk at a time."""
        self.drawn = max(self.drawn, n)
        yield from self.chunks(n)

    def gather(self, x: Tensor) -> Tensor:
        """Every process's x (k,*S), one after the other, on every process."""
        if self.accelerator.num_processes == 1:
            return x
        return torch.cat(gather_object([x.cpu()])).to(x.device)

    def reduce(self, x: Tensor) -> Tensor:
        """The sum over processes of x."""
        if self.accelerator.num_processes == 1:
            return x
        total: Tensor = self.accelerator.reduce(x.to(self.accelerator.device), "sum")
        return total.to(x.device)


class StoredSamples(SharedSamples):
    """N items of a dataset at random, always the same ones, in place of samples; all of them if it has fewer."""

    def __init__(self, items: Items, accelerator: Accelerator):
        super().__init__(accelerator)
        self.items, self.order = items, permutation(len(items), 0)  # datasets are often sorted

    def __call__(self, n: int) -> Tensor:
        """All of the n events, on the CPU of every process."""
        return super().__call__(min(n, len(self.items)))

    def rows(self, n: int) -> Tensor:
        """Which of those of the n events that are there are this process's, (k,)."""
        return super().rows(min(n, len(self.items)))

    def batches(self, n: int) -> Iterator[Tensor]:
        """The events of ``rows(n)``, a chunk at a time."""
        return super().batches(min(n, len(self.items)))

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Items i*CHUNK up to (i+1)*CHUNK, or n, for each i of ``mine``."""
        for i in self.mine(n):
            chosen = self.order[i * CHUNK : min((i + 1) * CHUNK, n)]
            self.seen(len(chosen))
            yield self.items[chosen]

    def labels(self, n: int) -> Tensor | None:
        """Their labels (n,), where they have some."""
        return self.items.about[self.order[:n]] if isinstance(self.items.about, Tensor) else None
