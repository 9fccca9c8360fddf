"""Noise as a function of place, not of history: (seed, epoch, batch, process) fixes the draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MASK = (1 << 64) - 1


def mixed_seed(*place: int) -> int:
    """One 63-bit seed from a tuple of integers; splitmix64 (Steele et al. 2014) folded over them."""
    state = len(place)
    for part in place:
        state = (state + 0x9E3779B97F4A7C15 + (part & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def seed_generators(*place: int, device: torch.device) -> None:
    """Seeds the CPU's generator and that of `device` with a function of place."""
    seed = mixed_seed(*place)
    # torch.manual_seed costs 75 us, since it visits every backend; this one 1 us.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


@contextmanager
def forked_rng(*place: int, device: torch.device) -> Iterator[None]:
    """Inside, the generators are seeded with a function of place; outside, nothing has happened."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_generators(*place, device=device)
        yield
