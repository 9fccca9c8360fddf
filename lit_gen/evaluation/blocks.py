"""Images of a task in fixed blocks that are dealt to the processes, and their features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from lit_gen.core.types import Batch, PairBatch


class FeaturePart(NamedTuple):
    """One task's images as features; only those of this process's blocks."""

    features: Tensor  # float32 [n, D], on the CPU
    logits: Tensor  # float32 [n, K], on the CPU; K = 0 if the extractor does not classify
    index: Tensor  # int64 [n], place among the task's images
    total: int  # the task's images on all processes


class RealImages(NamedTuple):
    """The real images of a task that are looked at."""

    dataset: Dataset[Batch]
    chosen: Tensor  # int64 [total], places in the data set
    part: FeaturePart


@contextmanager
def undisturbed(module: LightningModule) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every submodule has its own mode again outside."""
    was_training = {each: each.training for each in module.modules()}
    module.eval()
    try:
        # Lightning tests in inference mode; what is kept there cannot be used in a later fit.
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for each, mode in was_training.items():
            each.training = mode


def blocks(total: int, size: int, trainer: Trainer) -> Iterator[tuple[int, Tensor]]:
    """This process's blocks of `total` images: number and places. No padding, so no image comes twice."""
    for number in range(trainer.global_rank, -(-total // size), trainer.world_size):
        yield number, torch.arange(number * size, min((number + 1) * size, total))


def gathered(values: Tensor, places: Tensor, total: int, trainer: Trainer) -> Tensor:
    """Values of single images, [n, ...] of this process's blocks, as those of all: [total, ...], on the CPU.

    Exactly the same for any number of processes: every place is filled by one of them.
    """
    every = torch.zeros(total, *values.shape[1:], dtype=values.dtype, device=values.device)
    every[places.to(values.device)] = values
    return trainer.strategy.reduce(every, reduce_op="sum").cpu()


def choose(count: int, most: int, seed: int) -> Tensor:
    """All of `count` places, or `most` of them at random, ascending."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def target_images(batch: Batch | PairBatch) -> Tensor:
    """The real images that generated ones are compared with."""
    return batch.b.image if isinstance(batch, PairBatch) else batch.image


def on_device(batch: Batch | PairBatch, device: torch.device) -> Batch | PairBatch:
    """The batch with all its parts on the device."""
    if isinstance(batch, PairBatch):
        return PairBatch(on_device(batch.a, device), on_device(batch.b, device))
    return Batch(*(part.to(device) for part in batch))


def abilities_of(module: LightningModule) -> nn.Module:
    """The module whose promises count: a LitModel may wrap another."""
    return module.abilities() if isinstance(module, _HasAbilities) else module


@runtime_checkable
class _HasAbilities(Protocol):
    def abilities(self) -> nn.Module:
        """The module whose protocols count."""
