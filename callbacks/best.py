"""The best checkpoint of every task, beside the newest ones."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.checkpoints import RunCheckpoints
from lit_gen.core.checkpoint import BEST
from lit_gen.core.lightning_internals import log_epoch_now
from lit_gen.core.module import LitModel

log = logging.getLogger(__name__)


class BestCheckpoint(Checkpoint):
    """Keeps `best-<k>.ckpt` of task k in `checkpoints/`: the end of the epoch at which a value was best.

    Values of two phases are none to compare, so that a later phase of the task takes the place of an earlier
    one. Such a file is whole: a run can be resumed from it.

    Args:
        monitor: what validation logs: "val/loss", a term, or "val/fid", a score of the judges.
        mode: whether the least is best, or the most.
    """

    def __init__(self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min") -> None:
        self.monitor, self.mode = monitor, mode
        self._best = math.inf  # of the phase; with the sign that makes the least best
        self._phase: list[int | str] = []  # task and name

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "phase": self._phase}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._phase = state_dict["best"], state_dict["phase"]

    def on_train_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        phase = [trainer.datamodule.current_task, pl_module.phase.name]
        if phase != self._phase:
            self._best, self._phase = math.inf, phase

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or trainer.fast_dev_run:
            return
        value = float(value) if self.mode == "min" else -float(value)
        if trainer.strategy.broadcast(value < self._best, src=0):
            self._best = value
            (saver,) = (each for each in trainer.callbacks if isinstance(each, RunCheckpoints))
            log_epoch_now(trainer)
            saver.save(trainer, trainer.datamodule.tasks[trainer.datamodule.current_task], BEST)

    def on_train_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        if self._best == math.inf and trainer.is_global_zero:
            log.warning(
                "no best checkpoint of phase %s: %s was not logged; there was %s",
                *(
                    pl_module.phase.name,
                    self.monitor,
                    ", ".join(sorted(trainer.callback_metrics)) or "nothing",
                ),
            )
