"""Warns when a generator draws only a part of what it should."""

from __future__ import annotations

import logging
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lit_gen.core.types import InputError
from lit_gen.evaluation.scores import ReportsScores, Score

log = logging.getLogger(__name__)


class ModeCollapse(Callback):
    """Reads the scores of the callbacks before it and names a likely mode collapse in the log.

    It is likely when good images are few in kind (recall below `recall`, precision above `precision`) at
    two scorings running, or when the images fill less than `classes` of the classes that real images have.

    Args:
        recall: in [0, 1].
        precision: in [0, 1].
        classes: in [0, 1].
    """

    def __init__(self, recall: float = 0.1, precision: float = 0.5, classes: float = 0.5) -> None:
        for key, value in (("recall", recall), ("precision", precision), ("classes", classes)):
            if not 0 <= value <= 1:
                raise InputError(f"callbacks.mode_collapse.{key}={value}: must be from 0 to 1")
        self.recall, self.precision, self.classes = recall, precision, classes
        self._suspicions = 0  # scorings running with low recall and high precision
        self._read: dict[int, list[Score]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"suspicions": self._suspicions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._suspicions = state_dict["suspicions"]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        for callback in trainer.callbacks:
            if not isinstance(callback, ReportsScores):
                continue
            known = self._read.get(id(callback))
            # A pass makes a new list; without one the list is that of an earlier pass.
            if callback.scores is known or not callback.scores:
                continue
            self._read[id(callback)] = callback.scores
            reason = self._judge({s.metric: s for s in callback.scores if s.on_task is None})
            if reason and trainer.is_global_zero:
                log.warning("mode collapse is likely after epoch %d: %s", trainer.current_epoch, reason)

    def _judge(self, scores: dict[str, Score]) -> str:
        """Why the samples look collapsed; empty when they do not."""
        reasons = []
        if "recall" in scores and "precision" in scores:
            recall, precision = scores["recall"].value, scores["precision"].value
            is_low = recall < self.recall and precision > self.precision
            self._suspicions = self._suspicions + 1 if is_low else 0
            if self._suspicions >= 2:
                times = f"at {self._suspicions} scorings running"
                reasons.append(f"recall {recall:.2f} with precision {precision:.2f}, {times}")
        share = scores["class_coverage"].value if "class_coverage" in scores else 1.0
        if share < self.classes:
            covered = scores["classes_covered"].value
            of = f" of {covered / share:.0f}" if share else ""
            reasons.append(f"images of {covered:.0f}{of} classes")
        return "; ".join(reasons)
