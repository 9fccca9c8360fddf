"""Images of past tasks that are drawn once and dealt out again and again, for teachers that draw slowly.

A pool is kept as uint8 on the device. It is no part of a checkpoint: the place it was drawn from, (seed, use,
...), makes it again, the same on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_gen.core.random import forked_rng, processes
from lit_gen.core.types import Batch, ImageSpec

BLOCK = 500  # images that are drawn at once, however many processes there are


def drawn(
    total: int, draw: Callable[[int], Batch], spec: ImageSpec, device: torch.device, *place: int
) -> Batch:
    """What `draw` gives of so many images, in blocks, as it is stored; every process draws some of them."""
    world, rank = processes()
    image = torch.zeros(total, *spec.shape, dtype=spec.stored, device=device)
    pool = Batch(image, *torch.zeros(3, total, dtype=torch.long, device=device))
    for block in range(rank, -(-total // BLOCK), world):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, total))
        with forked_rng(*place, block, device=device):
            some = draw(part.stop - part.start)
        some = some._replace(image=spec.to_stored(some.image))
        for whole, piece in zip(pool, some, strict=True):
            whole[part] = piece
    if world > 1:
        for whole in pool:
            torch.distributed.all_reduce(whole)  # each place was filled by one process
    return pool


def dealt(pool: Batch, count: int, so_far: Tensor) -> Batch:
    """The next images, this process's of `count` for each.

    Args:
        so_far: int64 [], how many all processes were dealt; counted on in place. On the device: reading it
            would wait for all that it has still to do.
    """
    world, rank = processes()
    places = so_far + rank + world * torch.arange(count, device=so_far.device)
    so_far += world * count
    return pool.map(lambda part: part[places % pool.size]).ready()


def labels_and_tasks(count: int, sizes: Tensor, label_counts: Tensor) -> tuple[Tensor, Tensor]:
    """What images of past tasks are to be: tasks by their sizes [T], labels by their counts [T, K] in the
    task, -1 in tasks without labels: int64 [count] twice, from the global generator.
    """
    task = torch.multinomial(sizes, count, replacement=True)
    counts = label_counts[task]
    is_labelled = counts.sum(1) > 0
    label = torch.multinomial(counts + (~is_labelled).float()[:, None], 1).squeeze(1)
    return torch.where(is_labelled, label, -1), task
