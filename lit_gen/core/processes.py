"""What all processes of a run know together; in a run of one process, what it knows itself."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor


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
