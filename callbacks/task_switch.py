"""The callback that puts module and data on a stage of the run, seeds every batch, and keeps the place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, Trainer

from lit_gen.core.module import LitModel
from lit_gen.core.one_fit import is_ended_early
from lit_gen.core.progress import Course
from lit_gen.core.random import Use, forked_rng, mixed_seed, seed_generators
from lit_gen.core.types import Batch, Phase, Task

LOOK_BATCH = 250


class TaskSwitch(Callback):
    """Puts module and datamodule on the current stage before each fit and keeps it in every checkpoint.

    It seeds the generators before every training batch with (seed, epoch, batch, process): noise differs
    between processes and does not depend on what was drawn before, which makes a resume exact. Noise for
    held-out images is a function of the seed and of the images, the same for any number of processes.

    Attributes:
        stage: place in `datamodule.stages`.
        phase: place in `module.phases(task)`.
        course: how far the phase is.
        ended: the phase's `end` has run.
        stopped: a callback had ended the phase of the checkpoint before its length was reached.
        current: what is trained now, set by `fit_stages`.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.stage, self.phase, self.course, self.ended, self.stopped = 0, 0, Course(), False, False
        self._trainer: Trainer | None = None
        self.current: tuple[Task, Phase] | None = None

    def state_dict(self) -> dict[str, Any]:
        place = {name: getattr(self, name) for name in ("seed", "stage", "phase", "ended")}
        is_early = self._trainer is not None and is_ended_early(self._trainer)
        stopped = is_early and not self.course.is_over  # which tells the Trainer to stop as well
        return place | {"stopped": stopped, "course": self.course.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stage, self.phase, self.ended = (state_dict[name] for name in ("stage", "phase", "ended"))
        self.stopped = state_dict.get("stopped", False)
        self.course.load_state_dict(state_dict["course"])

    def setup(self, trainer: Trainer, pl_module: LitModel, stage: str) -> None:
        if stage not in ("fit", "predict") or self.current is None:
            return
        task, phase = self.current
        self._trainer = trainer
        trainer.datamodule.current_task = task.index
        with forked_rng(self.seed, Use.BETWEEN, self.stage, self.phase, 0, device=pl_module.device):
            phase.begin(task)
        pl_module.enter(phase, self.course)

    def finish(self, module: LitModel) -> None:
        """Runs the phase's `end`, once."""
        task, phase = self.current
        if not self.ended:
            with forked_rng(self.seed, Use.BETWEEN, self.stage, self.phase, 1, device=module.device):
                phase.end(task)
            self.ended = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LitModel, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self.current is not None and self.current[1].each_epoch is not None:
            # Not on_train_epoch_start: Lightning skips it in the first epoch after a resume.
            self._look(trainer, pl_module, *self.current)
        self._seed(Use.TRAIN, trainer, pl_module, batch_idx)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LitModel, *_: Any) -> None:
        if self.course.is_over:
            trainer.should_stop = True

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LitModel, batch: Any, *_: Any) -> None:
        if batch.size:
            seed_generators(self.seed, Use.TERMS, batch.first, device=pl_module.device)

    on_test_batch_start = on_validation_batch_start

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LitModel, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._seed(Use.BETWEEN, trainer, pl_module, batch_idx)

    def _seed(self, kind: Use, trainer: Trainer, module: LitModel, batch_idx: int) -> None:
        place = (trainer.current_epoch, batch_idx, trainer.global_rank)
        seed_generators(self.seed, kind, *place, device=module.device)

    def _look(self, trainer: Trainer, module: LitModel, task: Task, phase: Phase) -> None:
        images = trainer.datamodule.dataset("train", [task.index])
        rng = torch.Generator().manual_seed(
            mixed_seed(self.seed, Use.LOOK, self.stage, trainer.current_epoch)
        )
        order = torch.randperm(len(images), generator=rng)

        def look(count: int) -> Sequence[Batch]:
            parts = order[:count].split(LOOK_BATCH)
            return [images.__getitems__(places.tolist()).to(module.device).ready() for places in parts]

        with forked_rng(self.seed, Use.BETWEEN, trainer.current_epoch, 2, device=module.device):
            phase.each_epoch(task, look)
