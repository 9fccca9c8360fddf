"""What all processes of a run know together; in a run of one process, what it knows itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from torch import Tensor
from tqdm import tqdm

from lit_gen.core.random import processes
from lit_gen.core.types import InputError

_LOG_SECONDS = 30.0


def summed(part: Tensor) -> Tensor:
    """The sum over processes, in place; collective. Every process gives the same shape."""
    if _are_several():
        torch.distributed.all_reduce(part)
    return part


def gathered(rows: Tensor) -> Tensor:
    """Rows [n, ...] of all processes, those of process 0 first; collective. n may differ."""
    if not _are_several():
        return rows
    world = torch.distributed.get_world_size()
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(world)]
    torch.distributed.all_gather(sizes, size)
    counts = [int(each) for each in sizes]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def united(names: set[str]) -> list[str]:
    """The names that any process has, in one order; collective."""
    if not _are_several():
        return sorted(names)
    every: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, names)
    return sorted(set().union(*every))


def _are_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def wrong_for_all() -> Iterator[None]:
    """What cannot be used by one process ends all of them at the end of the block, which all reach; the first
    says what every one has found.

    Raises:
        InputError: in the first process; the others exit.
    """
    said: set[str] = set()
    try:
        yield
    except InputError as error:
        said.add(str(error))
    if wrong := united(said):
        if processes()[1] > 0:
            raise SystemExit(0)  # with another code the first would be killed before it has spoken
        raise InputError("\n".join(wrong))


class ImageBar(tqdm):
    """Counts the images of all processes by those of the first one, which shows it on standard error: on a
    terminal at once, elsewhere a line every 30 s.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.world, rank = processes()
        seconds = 0.2 if sys.stderr.isatty() else _LOG_SECONDS
        super().__init__(
            desc=what,
            total=total,
            initial=done,
            unit=" images",
            mininterval=seconds,
            delay=seconds,
            disable=rank > 0,
            leave=False,
        )

    def count(self, images: int) -> None:
        """So many of this process's are done, and of every other one's."""
        self.update(min(images * self.world, self.total - self.n))
