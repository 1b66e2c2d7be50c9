"""Images that are read when batches need them, in an order that the seed alone decides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from dxmi.api import Annotations, ConfigError
from dxmi.api.errors import first_line, require
from dxmi.api.noise import generator
from dxmi.config import DataConfig
from dxmi.data.items import Batch, Images
from dxmi.data.pixels import centre, random_crop, read_pixels, scaled
from dxmi.data.tables import about_key, has_column, read_about


class Stream:
    """A `datasets.IterableDataset` of undecoded images.

    Each epoch is the dataset with its shards in another order, shuffled among ``data.buffer`` images. Batches follow
    each other through one epoch into the next and are functions of their arguments alone; the price is that a batch
    out of turn, as a resumed run's first, reads without decoding all that came before.

    Raises:
        ConfigError: it is empty, a column is missing, or the first item is no image, has no label or no caption
    """

    def __init__(self, table: Any, data: DataConfig):
        self.table, self.data, self.name = table, data, Path(str(data.path)).name
        self.key = about_key(data)
        if self.key is not None:
            has_column(table, data, self.key)
        self._items: Iterator[Any] = iter(())
        self._next: tuple[int, ...] = ()
        self.event_shape: tuple[int, ...] = ()
        first = list(self._rows(table.take(1)))
        require(bool(first), "data.path", f"{data.path} is empty")
        self.known(first, 0)
        self.event_shape = tuple(self.pixels(first, 0, None).shape[1:])

    @property
    def classes(self) -> int | None:
        """How many the column of labels says there are; None if it does not."""
        classes = self.key == "label" and getattr(self.table.features[self.data.label], "num_classes", None)
        return classes or None

    def batch(self, number: int, size: int, seed: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch ``number`` (0, 1, …) of process ``rank``: float (size,C,H,W) in [-1, 1] and what is known of them.

        Raises:
            ConfigError: an item cannot be read; it is named by its place in this process's stream
        """
        if self._next != (number, size, seed, rank, world):
            self._items = islice(self.endless(seed, rank, world), number * size, None)
        self._next = (number + 1, size, seed, rank, world)
        rows, first = list(islice(self._items, size)), number * size
        return Batch(scaled(self.pixels(rows, first, generator(seed, number, rank))), self.known(rows, first))

    def endless(self, seed: int, rank: int, world: int) -> Iterator[dict[str, Any]]:
        """The rows of one epoch after the other, one of ``world`` equal shares of each."""
        from datasets.distributed import split_dataset_by_node

        for epoch in count():  # one shard at a time: for more, datasets starts threads that take seconds to end
            order = np.random.default_rng([seed, epoch])
            shuffled = self.table.shuffle(generator=order, buffer_size=self.data.buffer, max_buffer_input_shards=1)
            row = None
            for row in self._rows(split_dataset_by_node(shuffled, rank, world)):
                yield row
            require(row is not None, "data.path", f"{self.data.path} has too few items for {world} processes")

    def _rows(self, table: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from table
        except Exception as error:  # as in load_table: whatever the files' readers raise
            raise ConfigError("data.path", f"{self.data.path} cannot be read: {first_line(error)}") from error

    def known(self, rows: list[dict[str, Any]], first: int) -> Annotations:
        """Labels (N,) or captions of rows ``first``, ``first + 1``, … of the stream."""
        if self.key is None:
            return None
        return read_about((row[getattr(self.data, self.key)] for row in rows), self.data, first, "item")

    def pixels(self, rows: list[dict[str, Any]], first: int, draws: Generator | None) -> Tensor:
        """Their images, uint8 (N,C,H,W); without ``draws`` random crops are the centres."""
        return torch.stack([self.image(row, first + i, draws) for i, row in enumerate(rows)])

    def image(self, row: dict[str, Any], place: int, draws: Generator | None) -> Tensor:
        """One decoded image, uint8 (C,H,W) of the first one's shape."""
        value, size = row[self.data.column], self.data.size
        where = f"item {place} of {self.data.path}"
        if value is not None and value.get("path"):
            where += f" ({Path(value['path']).name})"
        try:
            image = read_pixels(value, self.data)
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError("data.path", f"{where} is no readable image: {error}") from error
        if self.data.crop == "random" and size is not None:
            image = centre(image, size) if draws is None else random_crop(image, size, draws)
        channels, *sides = self.event_shape or image.shape
        if list(image.shape[1:]) != sides:
            own = f"{tuple(image.shape[1:])}, the first is {tuple(sides)} (H,W)"
            raise ConfigError("data.size", f"{where} is {own}", "set data.size to resize")
        require(len(image) <= channels, "data.path", f"{where} has colour, the first image has none", "store one kind")
        return image.expand(channels, -1, -1)

    def reference(self) -> Images:
        """What evaluators compare samples with: the first ``data.reference`` items, as they come."""
        return self._reference

    @cached_property
    def _reference(self) -> Images:
        rows = list(self._rows(self.table.take(self.data.reference)))
        return Images(self.pixels(rows, 0, None), f"the first {len(rows)} of {self.name}", self.known(rows, 0))
