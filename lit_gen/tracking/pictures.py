"""What callbacks hand to whichever logger takes it, beside numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor


@runtime_checkable
class TakesImages(Protocol):
    """A logger that keeps images."""

    def log_image(self, key: str, image: Tensor, step: int) -> None:
        """uint8 [H, W, C]."""


@runtime_checkable
class TakesScores(Protocol):
    """A logger that has a place for what the scores of a run say."""

    def log_scores(self, tags: Mapping[str, str]) -> None:
        """Extractor and floors as short texts, and as `scores` a text in Markdown."""


def log_picture(loggers: Iterable[Logger], key: str, image: Tensor, step: int) -> None:
    """Hands a picture, uint8 [H, W, C], to every logger that takes one, each in its own way. For rank 0."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image.numpy()], step=step)
        elif isinstance(logger, CometLogger):
            logger.experiment.log_image(image.numpy(), name=key, step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image.numpy(), key=key, step=step)
        elif isinstance(logger, TakesImages):
            logger.log_image(key, image, step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, image, step, dataformats="HWC")


def tensorboard(folder: str | Path = ".", next_step: int | None = None) -> TensorBoardLogger:
    """Writes to `tensorboard/` of the run folder, in one place for all phases and for what a resume adds.

    Args:
        next_step: of a resumed run; TensorBoard hides what was logged from there on before.
    """
    return TensorBoardLogger(save_dir=folder, name="tensorboard", version="", purge_step=next_step)
