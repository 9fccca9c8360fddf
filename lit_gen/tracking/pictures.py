"""What several callbacks need: images to whichever logger takes them, and how far a run is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


@runtime_checkable
class TakesImages(Protocol):
    """A logger that keeps images."""

    def log_image(self, key: str, image: Tensor, step: int) -> None:
        """uint8 [H, W, C]."""


def log_picture(trainer: Trainer, key: str, image: Tensor, step: int) -> None:
    """Hands a picture, uint8 [H, W, C], to every logger that takes one. For rank 0."""
    for logger in trainer.loggers:
        if isinstance(logger, TakesImages):
            logger.log_image(key, image, step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, image, step, dataformats="HWC")


def batches_seen(trainer: Trainer) -> int:
    """Training batches since the run began, which is the step that loggers count by.

    Not `trainer.global_step`: it counts every optimizer's steps.
    """
    return trainer.fit_loop.total_batch_idx + 1


def num_images(batch: Any) -> int:
    """Images in a batch; of a pair of domains, those of the first."""
    first = batch[0] if isinstance(batch, (tuple, list)) else batch
    return num_images(first) if isinstance(first, tuple) else len(first)
