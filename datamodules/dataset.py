"""Items of a stream's tasks: one indexing operation gives a whole batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.types import Batch, PairBatch

_AT_ONCE = 4096  # items whose digests are taken together


class Store(Protocol):
    """Items as they are kept, uint8 images or int64 symbols: a tensor, or what makes them when asked."""

    @property
    def shape(self) -> Sequence[int]:
        """[N, C, S, S] of images, [N, L] of sequences."""

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """`dim` is 0."""


class LabelledItems(NamedTuple):
    """The items of one official split, as read."""

    image: Store
    label: Tensor  # int64 [N], or float32 [N, A] in {0, 1} for attribute data
    group: Tensor  # int64 [N]: what a split deals out, usually the label; -1 takes part in no task
    source: Tensor | None = None  # int64 [N] in [0, N): rows of one source are held out together


class Indexed(Dataset[Batch]):
    """A data set that is asked for many places at once."""

    def batch(self, places: Tensor) -> Batch | PairBatch:
        """The items at int64 [B]."""
        raise NotImplementedError

    def __getitem__(self, place: int | np.ndarray | Tensor) -> Batch | PairBatch:
        """A batch for an array of places; for one place an item without the batch dimension."""
        if isinstance(place, int):
            return self.batch(torch.tensor([range(len(self))[place]])).map(lambda part: part[0])
        return self.batch(torch.as_tensor(place))

    def __getitems__(self, places: list[int]) -> Batch | PairBatch:
        return self.batch(torch.as_tensor(places))


@dataclass(eq=False, repr=False)
class StreamDataset(Indexed):
    """Items of some tasks in the order of the stream, as they are kept.

    Attributes:
        rows: int64 [n], the items' rows in `image` and `label`.
        task: int64 [n].
        index: int64 [n], the items' places in the whole stream.
        looks: what images go through when they are asked for, given with their rows and indices.
    """

    image: Store
    label: Tensor
    rows: Tensor
    task: Tensor
    index: Tensor
    looks: Sequence[Callable[[Tensor, Tensor, Tensor], Tensor]] = ()

    def at(self, places: Tensor) -> StreamDataset:
        """The items at these places only: int64, or bool [n]."""
        return replace(self, rows=self.rows[places], task=self.task[places], index=self.index[places])

    def of(self, tasks: Sequence[int]) -> StreamDataset:
        """The items of these tasks only."""
        return self.at(torch.isin(self.task, torch.tensor(list(tasks))))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, places: Tensor) -> Batch:
        # index_select is two to five times as fast as indexing with a tensor.
        rows, index = self.rows.index_select(0, places), self.index.index_select(0, places)
        image = self.image.index_select(0, rows)
        for look in self.looks:
            image = look(image, rows, index)
        return Batch(image, self.label.index_select(0, rows), self.task.index_select(0, places), index)

    def digests(self) -> np.ndarray:
        """uint64 [n]: of each item and its label, as they were read. A second for a gigabyte."""
        # What shows one image in several views has it as `image`: the views are a function of the settings.
        image, found = getattr(self.image, "image", self.image), []
        for some in self.rows.split(_AT_ONCE):
            items = image.index_select(0, some % len(image)).numpy()
            labels = self.label.index_select(0, some).numpy()
            for item, label in zip(items, labels, strict=True):
                found.append(hashlib.blake2b(item.tobytes() + label.tobytes(), digest_size=8).digest())
        return np.frombuffer(b"".join(found), dtype="<u8")

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """How many items have each label or attribute; hidden labels do not count."""
        label = self.label[self.rows]
        if label.ndim > 1:
            return tuple(label.clamp(min=0).sum(0).long().tolist())
        return tuple(torch.bincount(label[label >= 0], minlength=num_classes).tolist())
