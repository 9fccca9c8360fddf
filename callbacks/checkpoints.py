"""Checkpoints that a kill at any moment cannot spoil: written aside, renamed into place, two of them kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_gen.core.checkpoint import LAST, PREVIOUS
from lit_gen.core.types import Task


class RunCheckpoints(Checkpoint):
    """Keeps `last.ckpt` at most one epoch or `every_seconds` old, whichever is later, and one file per task.

    Args:
        folder: `checkpoints/` of the run.
        every_seconds: an epoch that ends sooner than this leaves none, unless it ends a phase.
    """

    def __init__(self, folder: str | Path, every_seconds: float = 10.0) -> None:
        self.folder = Path(folder)
        self.every_seconds = every_seconds
        self._written = -float("inf")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:
            return
        ends = trainer.fit_loop.epoch_progress.current.processed == trainer.max_epochs or trainer.should_stop
        due = ends or time.monotonic() - self._written >= self.every_seconds
        # One answer for all processes: saving is collective.
        if trainer.strategy.broadcast(due, src=0):
            self.save(trainer)

    def save(self, trainer: Trainer, task: Task | None = None) -> None:
        """Writes `last.ckpt`, and with a task `task-<k>.ckpt` beside it. Collective."""
        fresh = self.folder / "writing.ckpt"
        trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            if task is not None:
                _link(fresh, self.folder / f"task-{task.index}.ckpt")
            last = self.folder / LAST
            if last.exists():
                os.replace(last, self.folder / PREVIOUS)
            os.replace(fresh, last)
        self._written = time.monotonic()


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name, by a copy where the file system has no links."""
    aside = target.with_suffix(".tmp")
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:
        aside.write_bytes(source.read_bytes())
    os.replace(aside, target)
