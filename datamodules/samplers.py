"""Which images a process sees, one index array per batch: shuffled for training, in fixed order otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler, SequentialSampler

from datamodules.tasks import seeded
from lit_gen.core.types import InputError

_PURPOSE = 4  # keeps the order of batches apart from the other uses of the seed


class ShuffledBatches(Sampler[np.ndarray]):
    """Batches of a training epoch. The order is a function of (seed, epoch) alone.

    One permutation of all images is dealt round robin to the processes. Every process has equally many
    batches, so the first images of the permutation may be handed out again at its end. Lightning calls
    `set_epoch`.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.num_replicas, self.rank = num_replicas, rank
        self.share_size = math.ceil(num_images / num_replicas)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.share_size / self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        order = torch.randperm(self.num_images, generator=seeded(self.seed, _PURPOSE, self.epoch)).numpy()
        dealt = np.resize(order, self.share_size * self.num_replicas)  # repeats from the start
        share = np.ascontiguousarray(dealt[self.rank :: self.num_replicas])
        for first in range(0, self.share_size, self.batch_size):
            yield share[first : first + self.batch_size]


class EvenBatches(SequentialSampler):
    """Batches in fixed order: every image exactly once over all processes, equally many batches in each.

    The batches of a process differ in size by at most one, and so do the processes' shares. A
    SequentialSampler in name, since Lightning's `overfit_batches` looks for one.
    """

    def __init__(self, num_images: int, batch_size: int, num_replicas: int = 1, rank: int = 0) -> None:
        if num_images < num_replicas:
            raise InputError(
                f"{num_images} images cannot be shared by {num_replicas} processes, and evaluation never "
                "repeats one; lower trainer.devices or use more data."
            )
        self.num_images, self.num_replicas, self.rank = num_images, num_replicas, rank
        batches = math.ceil(math.ceil(num_images / num_replicas) / batch_size)
        # A share may be one image short of the longest, and no batch may be empty.
        self.num_batches = min(batches, num_images // num_replicas)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[np.ndarray]:
        share = np.arange(self.rank, self.num_images, self.num_replicas)
        yield from np.array_split(share, self.num_batches)
