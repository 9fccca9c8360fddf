"""Which images a process sees, one index array per batch: shuffled for training, in fixed order otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler, SequentialSampler

from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import Dealt, InputError


class ShuffledBatches(Sampler[np.ndarray]):
    """Batches of a training epoch. The order is a function of (seed, epoch) alone.

    One permutation of all images is cut into optimizer steps, and each step is dealt round robin to the
    processes and to the batches that a process accumulates. So steps hold the same images for any number of
    processes. Batches of a step are equally long: in the last one of an epoch those with fewer images repeat
    one, see `dealt`. Lightning calls `set_epoch`.

    Args:
        batch_size: of one process.
        accumulated: batches whose gradients make one step.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
        accumulated: int = 1,
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.num_replicas, self.rank, self.accumulated = num_replicas, rank, accumulated
        self.parts = num_replicas * accumulated
        self.step_size = batch_size * self.parts
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.num_images / self.step_size) * self.accumulated

    def __iter__(self) -> Iterator[np.ndarray]:
        order = self.order()
        for first in range(0, self.num_images, self.step_size):
            step = order[first : first + self.step_size]
            size = math.ceil(len(step) / self.parts)
            if self.parts > 1:
                size = max(size, min(2, len(step), self.batch_size))  # batch norm of one image is none
            for part in range(self.rank, self.parts, self.num_replicas):
                own = np.ascontiguousarray(step[part :: self.parts])
                again = (own if len(own) else step)[:1]
                yield np.concatenate([own, np.repeat(again, size - len(own), axis=0)])

    def dealt(self, batch: int) -> Dealt:
        """How many images there are in a batch of the epoch."""
        whole = min(self.step_size, self.num_images - batch // self.accumulated * self.step_size)
        first = batch % self.accumulated * self.num_replicas
        counts = [len(range(first + rank, whole, self.parts)) for rank in range(self.num_replicas)]
        return Dealt(counts[self.rank], sum(counts), counts[self.rank] * self.parts / whole)

    def order(self) -> np.ndarray:
        """The places of the epoch: [N]."""
        return torch.randperm(
            self.num_images, generator=generator(self.seed, DataUse.ORDER, self.epoch)
        ).numpy()


class ShuffledPairs(ShuffledBatches):
    """Batches of places in two domains, int64 [n, 2].

    Each domain has permutations of its own, one after the other, until the longer one is through.
    """

    def __init__(self, sizes: tuple[int, int], *args: int) -> None:
        super().__init__(max(sizes), *args)
        self.sizes = sizes

    def order(self) -> np.ndarray:
        return np.stack([self._of_domain(domain, size) for domain, size in enumerate(self.sizes)], 1)

    def _of_domain(self, domain: int, size: int) -> np.ndarray:
        place = (self.seed, DataUse.PAIR_ORDER, domain, self.epoch)
        rounds = range(math.ceil(self.num_images / size))
        orders = [torch.randperm(size, generator=generator(*place, number)) for number in rounds]
        return torch.cat(orders)[: self.num_images].numpy()


class EvenBatches(SequentialSampler):
    """Batches in fixed order: every image exactly once over all processes, equally many batches in each.

    The batches of a process differ in size by at most one, and so do the processes' shares. A
    SequentialSampler in name, since Lightning's `overfit_batches` looks for one.
    """

    def __init__(self, num_images: int, batch_size: int, num_replicas: int = 1, rank: int = 0) -> None:
        if num_images < num_replicas:
            raise InputError(
                f"{num_images} images cannot be shared by {num_replicas} processes without repeating one; "
                "lower trainer.devices or use more data."
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

    def dealt(self, batch: int) -> Dealt:
        """How many images there are in a batch."""
        shares = [len(range(rank, self.num_images, self.num_replicas)) for rank in range(self.num_replicas)]
        counts = [share // self.num_batches + (batch < share % self.num_batches) for share in shares]
        return Dealt(counts[self.rank], sum(counts))


class Blocks(SequentialSampler):
    """Blocks of images in fixed order, each of one task, dealt to the processes one by one.

    What a block holds depends neither on the size of training batches nor on the number of processes. Every
    process has equally many; those that are left without one get an empty one.

    Args:
        sizes: images of every task, one task behind the other.
    """

    def __init__(self, sizes: Sequence[int], block_size: int, num_replicas: int = 1, rank: int = 0) -> None:
        ends = np.cumsum(sizes)
        starts = [
            (first, end)
            for size, end in zip(sizes, ends, strict=True)
            for first in range(end - size, end, block_size)
        ]
        blocks = [np.arange(first, min(first + block_size, end)) for first, end in starts]
        blocks += [np.arange(0)] * (-len(blocks) % num_replicas)
        self.blocks = blocks[rank::num_replicas]

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.blocks)
