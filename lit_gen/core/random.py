"""Randomness as a function of place, not of history: (seed, use, epoch, batch, process) fixes the draws.

There are two mixing functions, and for each an enum of what the seed is used for, so that no two uses share
their draws: `generator` makes generators of their own for the data, `mixed_seed` seeds the global ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

_MASK = (1 << 64) - 1


class Use(IntEnum):
    """What a place in `mixed_seed`, `seed_generators` or `forked_rng` is for. Numbers never change their
    meaning: published values depend on them.
    """

    TRAIN = 0  # batches
    BETWEEN = 3  # before, after and between fits
    SAMPLES = 201  # sample quality
    SAMPLES_CHOICE = 202
    LIKELIHOOD = 211
    LIKELIHOOD_CHOICE = 212
    LIKELIHOOD_TRIAL = 213
    POSTERIOR_CHOICE = 221
    POSTERIOR = 222
    TERMS = 231  # a model's own, of held-out images
    TASK_ACCURACY = 232
    LATENT_MAP = 301
    CHOICE = 401  # analyses
    NOISE = 402
    CORRUPTION = 403
    GENERATED = 404
    CLASSIFIER = 405
    REPLAY_POOL = 501
    LOOK = 502  # images of the task that a phase looks at once per epoch
    SAMPLE_GRID = 0x6121D


class DataUse(IntEnum):
    """What a place in `generator`, (seed, use, ...), is for. Numbers never change their meaning: which images
    are in which task, and in which order, depends on them.
    """

    SHARES = 0
    DEAL = 1
    HOLD_OUT = 2
    HIDE_LABELS = 3
    ORDER = 4  # of training batches
    PERMUTATION = 5  # of pixels
    NOISE = 6  # that training images are changed with
    PAIR_ORDER = 7
    HALVES = 8
    PART = 9  # of the larger of two domains
    STACK = 10  # which images are stacked
    TARGET = 11  # which images of a target domain are trained on


def mixed_seed(*place: int) -> int:
    """One 63-bit seed from a tuple of integers; splitmix64 (Steele et al. 2014) folded over them."""
    state = len(place)
    for part in place:
        state = (state + 0x9E3779B97F4A7C15 + (part & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def generator(*place: int) -> torch.Generator:
    """A CPU generator of its own for a place such as (seed, use, epoch); 0 is as good a seed as any."""
    state = np.random.SeedSequence(place).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


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


def processes() -> tuple[int, int]:
    """Number of processes, and the number of this one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0
