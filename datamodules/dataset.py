"""Images of a stream's tasks: one indexing operation gives a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.types import Batch, Task


class ImageStore(Protocol):
    """uint8 images: a tensor (also a memory-mapped one), or something that makes them when asked."""

    @property
    def shape(self) -> Sequence[int]:
        """[N, C, S, S]"""

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """`dim` is 0."""


class LabelledImages(NamedTuple):
    """The images of one official split, as read."""

    image: ImageStore
    label: Tensor  # int64 [N], or float32 [N, A] in {0, 1} for attribute data
    group: Tensor  # int64 [N]: what a split deals out, usually the label; -1 takes part in no task
    source: Tensor | None = None  # int64 [N] in [0, N): rows of one source are held out together


class StreamDataset(Dataset[Batch]):
    """Images of some tasks in the order of the stream, uint8.

    Args:
        rows: int64 [n], the images' rows in `image` and `label`.
        task: int64 [n].
        index: int64 [n], the images' places in the whole stream.
    """

    def __init__(self, image: ImageStore, label: Tensor, rows: Tensor, task: Tensor, index: Tensor) -> None:
        self.image, self.label = image, label
        self.rows, self.task, self.index = rows, task, index

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int | np.ndarray | Tensor) -> Batch:
        """A batch for an array of places; for one place an image without the batch dimension."""
        if isinstance(place, int):
            return Batch(*(part[0] for part in self[torch.tensor([range(len(self))[place]])]))
        place = torch.from_numpy(place) if isinstance(place, np.ndarray) else place
        # index_select is two to five times as fast as indexing with a tensor.
        rows = self.rows.index_select(0, place)
        return Batch(
            self.image.index_select(0, rows),
            self.label.index_select(0, rows),
            self.task.index_select(0, place),
            self.index.index_select(0, place),
        )

    def __getitems__(self, places: list[int]) -> Batch:
        return self[torch.as_tensor(places)]


class DealtImages:
    """One official split after it was dealt into tasks.

    Args:
        rows: the images' rows, one array per task.
    """

    def __init__(self, images: LabelledImages, rows: Sequence[Tensor]) -> None:
        self.images = images
        self.rows = torch.cat(list(rows))
        self.first = np.cumsum([0, *map(len, rows)]).tolist()  # where a task begins; one more entry, the end

    def dataset(self, tasks: Sequence[int]) -> StreamDataset:
        index = torch.cat([torch.arange(self.first[task], self.first[task + 1]) for task in tasks])
        sizes = torch.tensor([self.first[task + 1] - self.first[task] for task in tasks])
        task = torch.tensor(list(tasks)).repeat_interleave(sizes)
        return StreamDataset(self.images.image, self.images.label, self.rows[index], task, index)

    def describe(self, names: Sequence[str], num_classes: int) -> tuple[Task, ...]:
        """The tasks as models see them. Hidden labels are not counted."""
        tasks = []
        for number, name in enumerate(names):
            first, end = self.first[number], self.first[number + 1]
            label = self.images.label[self.rows[first:end]]
            if label.ndim > 1:
                counts = label.sum(0).long()
            else:
                counts = torch.bincount(label[label >= 0], minlength=num_classes)
            tasks.append(Task(number, name, tuple(counts.tolist()), first, end - first))
        return tuple(tasks)

    def save(self, folder: Path, prefix: str) -> None:
        """Writes the rows of task k to `<prefix>_task<k>.npy`, int64."""
        for number, (first, end) in enumerate(zip(self.first, self.first[1:], strict=False)):
            np.save(folder / f"{prefix}_task{number}.npy", self.rows[first:end].numpy())
