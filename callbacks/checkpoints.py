"""Checkpoints that a kill at any moment cannot spoil: written aside, renamed into place, two of them kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_gen.core.checkpoint import LAST, PREVIOUS, WRITING
from lit_gen.core.files import is_whole, name_too, whole
from lit_gen.core.lightning_internals import log_epoch_now
from lit_gen.core.progress import epochs_done
from lit_gen.core.types import Task


class RunCheckpoints(Checkpoint):
    """Keeps `last.ckpt` at most one epoch or `every_seconds` old, whichever is later, and one file per task.

    They lie in `checkpoints/` under the Trainer's default_root_dir.

    Args:
        every_seconds: an epoch that ends sooner than this leaves none, unless it ends a phase.
    """

    def __init__(self, every_seconds: float = 10.0) -> None:
        self.every_seconds = every_seconds
        self._written = -float("inf")

    def folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:
            return
        ends = epochs_done(trainer) == trainer.max_epochs or trainer.should_stop
        due = ends or time.monotonic() - self._written >= self.every_seconds
        # One answer for all processes: saving is collective.
        if trainer.strategy.broadcast(due, src=0):
            log_epoch_now(trainer)  # what is logged after this checkpoint would be lost with a kill
            self.save(trainer)

    def save(self, trainer: Trainer, task: Task | None = None, name: str = "task-{}.ckpt") -> None:
        """Writes `last.ckpt`, and with a task another one beside it, of this name. Collective."""
        folder = self.folder(trainer)
        fresh, last = folder / WRITING, folder / LAST
        with whole(fresh, last):
            trainer.save_checkpoint(fresh)
            if trainer.is_global_zero:
                with fresh.open("rb") as file:
                    os.fsync(file.fileno())
        if trainer.is_global_zero:
            if task is not None:
                name_too(fresh, folder / name.format(task.index))
            # A damaged one that was there when the run went on takes the place of no good one.
            if last.exists() and (self._written >= 0 or is_whole(last)):
                os.replace(last, folder / PREVIOUS)
            os.replace(fresh, last)
        self._written = time.monotonic()
