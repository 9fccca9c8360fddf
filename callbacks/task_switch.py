"""The walk over tasks and phases: one Trainer.fit per phase, and the callback that keeps the place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lit_gen.core import checkpoint
from lit_gen.core.checkpoint import Stored
from lit_gen.core.frozen import trainable
from lit_gen.core.images import to_float
from lit_gen.core.module import LitModel
from lit_gen.core.random import forked_rng, seed_generators
from lit_gen.core.types import Batch, InputError, Phase, StreamData, Task

log = logging.getLogger(__name__)

TRAIN, VALIDATE, TEST, BETWEEN = range(4)  # kinds of places that draw noise
LOOK_BATCH = 250


class TaskSwitch(Callback):
    """Puts module and datamodule on the current stage before each fit and keeps it in every checkpoint.

    It seeds the generators before every batch with (seed, epoch, batch, process): noise differs between
    processes and does not depend on what was drawn before, which makes a resume exact.

    Attributes:
        stage: place in `datamodule.stages`.
        phase: place in `module.phases(task)`.
        first_epoch: epoch at which the phase began.
        ended: the phase's `end` has run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.stage, self.phase, self.first_epoch, self.ended = 0, 0, 0, False
        self.end_epoch: int | None = None
        self.current: tuple[Task, Phase] | None = None  # set by fit_stages

    def state_dict(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in ("seed", "stage", "phase", "first_epoch", "ended")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stage, self.phase = state_dict["stage"], state_dict["phase"]
        self.first_epoch, self.ended = state_dict["first_epoch"], state_dict["ended"]

    def setup(self, trainer: Trainer, pl_module: LitModel, stage: str) -> None:
        if stage not in ("fit", "predict") or self.current is None:
            return
        task, phase = self.current
        trainer.datamodule.current_task = task.index
        with forked_rng(self.seed, BETWEEN, self.stage, self.phase, 0, device=pl_module.device):
            phase.begin(task)
        pl_module.enter(phase, self.first_epoch, self.end_epoch)

    def finish(self, module: LitModel) -> None:
        """Runs the phase's `end`, once."""
        task, phase = self.current
        if not self.ended:
            with forked_rng(self.seed, BETWEEN, self.stage, self.phase, 1, device=module.device):
                phase.end(task)
            self.ended = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LitModel, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            # Not on_train_epoch_start: Lightning skips it in the first epoch after a resume.
            self._look(trainer, pl_module)
        self._seed(TRAIN, trainer, pl_module, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LitModel, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._seed(VALIDATE, trainer, pl_module, batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LitModel, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._seed(TEST, trainer, pl_module, batch_idx)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LitModel, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._seed(BETWEEN, trainer, pl_module, batch_idx)

    def _seed(self, kind: int, trainer: Trainer, module: LitModel, batch_idx: int) -> None:
        # A test's place is its stage: a checkpoint evaluated on its own has no epoch.
        place = self.stage if kind == TEST else trainer.current_epoch
        seed_generators(self.seed, kind, place, batch_idx, trainer.global_rank, device=module.device)

    def _look(self, trainer: Trainer, module: LitModel) -> None:
        """Shows the phase a fixed subset of the task's images at the start of an epoch."""
        task, phase = self.current if self.current else (None, None)
        if phase is None or phase.each_epoch is None:
            return
        images = trainer.datamodule.dataset("train", [task.index])
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        batches = []
        for places in order[: phase.look_size].split(LOOK_BATCH):
            batch = images.__getitems__(places.tolist())
            batch = Batch(*(field.to(module.device) for field in batch))
            batches.append(batch._replace(image=to_float(batch.image)))
        with forked_rng(self.seed, BETWEEN, trainer.current_epoch, 2, device=module.device):
            phase.each_epoch(task, batches)


def fit_stages(
    trainer: Trainer,
    module: LitModel,
    datamodule: StreamData,
    ckpt_path: Path | None = None,
    after_task: Callable[[Task], None] | None = None,
    max_phase_epochs: int | None = None,
) -> bool:
    """Runs Trainer.fit once per phase of every task, or from the stage stored in a checkpoint on.

    Args:
        datamodule: set up, so that its stages are known.
        ckpt_path: a checkpoint of the same run.
        after_task: called on every process when a task's last phase has ended.
        max_phase_epochs: no phase is longer than this; None leaves them as they are.

    Returns:
        Whether the end was reached; False when the Trainer's timer stopped the run.

    Raises:
        InputError: the Trainer's settings cannot carry this model's phases.
    """
    walk = _Walk(trainer, module, datamodule, max_phase_epochs)
    walk.check()
    stored = checkpoint.read(ckpt_path) if ckpt_path is not None else None
    if stored is not None:
        walk.switch.load_state_dict(stored.state["callbacks"][walk.switch.state_key])
    first_stage, first_phase = walk.switch.stage, walk.switch.phase
    for stage in range(first_stage, len(datamodule.stages)):
        task = datamodule.stages[stage]
        datamodule.current_task = task.index
        for number, phase in enumerate(module.phases(task)):
            if stage == first_stage and number < first_phase:
                continue
            walk.run(stage, number, task, phase, stored)
            stored = None
            if walk.out_of_time():
                log.warning(
                    "trainer.max_time is over; stopped after phase %s of task %s", phase.name, task.name
                )
                return False
        if after_task is not None:
            after_task(task)
    return True


def check_stages(trainer: Trainer, module: LitModel, datamodule: StreamData) -> None:
    """What fit_stages checks before it begins.

    Raises:
        InputError: the Trainer's settings cannot carry this model's phases.
    """
    _Walk(trainer, module, datamodule, None).check()


class _Walk:
    """The Trainer, the module and what stays the same from stage to stage."""

    def __init__(
        self, trainer: Trainer, module: LitModel, datamodule: StreamData, max_phase_epochs: int | None
    ) -> None:
        self.trainer, self.module, self.datamodule = trainer, module, datamodule
        self.max_phase_epochs = max_phase_epochs
        self.default_epochs = trainer.max_epochs
        self.clipping = (trainer.gradient_clip_val, trainer.gradient_clip_algorithm or "norm")
        switches = [c for c in trainer.callbacks if isinstance(c, TaskSwitch)]
        if len(switches) != 1:
            raise RuntimeError(f"fit_stages needs one TaskSwitch among the callbacks, got {len(switches)}")
        self.switch = switches[0]

    def check(self) -> None:
        """Refuses settings of the Trainer that cannot mean the same over this model's phases."""
        trainer, strategy = self.trainer, self.trainer.strategy
        is_union = any(stage not in self.datamodule.tasks for stage in self.datamodule.stages)
        if self.module.needs_every_task and is_union:
            raise InputError(
                f"stream.joint=true: {type(self.module).__name__} learns task after task. Leave joint=false, "
                "or train a model of one task, such as model=multiband_local, on all tasks at once."
            )
        phases = [p for task in self.datamodule.stages for p in self.module.phases(task)]
        by_hand = any(p.is_manual for p in phases)
        counts_steps = trainer.max_steps != -1 and not trainer.fast_dev_run
        if counts_steps and (len(phases) > 1 or by_hand):
            reason = (
                "its optimizer steps are several per batch" if by_hand else f"it has {len(phases)} phases"
            )
            raise InputError(
                f"trainer.max_steps={trainer.max_steps}: the length of this run is counted in epochs, since "
                f"{reason}. Set trainer.max_epochs, or the model's own epochs, instead."
            )
        if by_hand and trainer.accumulate_grad_batches != 1:
            raise InputError(
                f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: this model runs its "
                "optimizer steps by hand, one per turn and batch. Set it to 1 and raise data.batch_size."
            )
        if len(phases) > 1 and isinstance(strategy.launcher, _MultiProcessingLauncher):
            raise InputError(
                "trainer.strategy=ddp_spawn (or ddp_notebook): this run has several phases, and spawned "
                "processes bring nothing back but weights. Use trainer=ddp."
            )
        if getattr(strategy, "_layer_sync", None) and strategy.root_device.type != "cuda":
            raise InputError(
                f"trainer.sync_batchnorm=true: torch has it for CUDA devices only, and this run is on "
                f"{strategy.root_device.type}. Set it to false, or use trainer.accelerator=gpu."
            )
        takes_turns = any(len(p.turns) > 1 for p in phases)
        if takes_turns and isinstance(strategy, DDPStrategy) and not _finds_unused(strategy):
            raise InputError(
                "trainer.strategy=ddp: this model takes turns, each of which leaves parameters without "
                "gradient, and plain ddp stops at that. Use trainer=ddp_gan."
            )

    def run(self, stage: int, number: int, task: Task, phase: Phase, stored: Stored | None) -> None:
        """One phase: what is left of it when it is the one stored in a checkpoint."""
        switch, loop = self.switch, self.trainer.fit_loop
        if stored is None:
            switch.stage, switch.phase, switch.ended = stage, number, False
            switch.first_epoch = loop.epoch_progress.current.processed
        switch.current = (task, phase)
        switch.end_epoch = self._end_epoch(phase, switch.first_epoch)
        self.datamodule.current_task = task.index
        if stored is not None and (switch.ended or self._is_finished(stored)):
            self._take_over(stored)
        elif not any(True for turn in phase.turns for m in turn.trains for _ in trainable(m)):
            self.trainer.predict(self.module, datamodule=self.datamodule, return_predictions=False)
        else:
            self._prepare_loop(phase)
            self.trainer.fit(
                self.module, datamodule=self.datamodule, ckpt_path=stored.path if stored else None
            )
        switch.finish(self.module)

    def out_of_time(self) -> bool:
        """Whether the Trainer's timer (`max_time`) has run out."""
        timers = [c for c in self.trainer.callbacks if hasattr(c, "time_remaining")]
        return any(timer.time_remaining() is not None and timer.time_remaining() <= 0 for timer in timers)

    def _end_epoch(self, phase: Phase, first_epoch: int) -> int | None:
        if self.trainer.fast_dev_run:
            return first_epoch + 1
        epochs = phase.epochs if phase.epochs is not None else self.default_epochs
        if epochs is None or epochs == -1:
            return None
        return first_epoch + (epochs if self.max_phase_epochs is None else min(epochs, self.max_phase_epochs))

    def _is_finished(self, stored: Stored) -> bool:
        loops = stored.state["loops"]["fit_loop"]
        if self.switch.end_epoch is None:
            return stored.state["global_step"] >= self.trainer.max_steps
        return loops["epoch_progress"]["current"]["processed"] >= self.switch.end_epoch

    def _take_over(self, stored: Stored) -> None:
        """A finished phase is not fitted again: weights, counters and callbacks are loaded."""
        self.module.enter(self.switch.current[1], self.switch.first_epoch, self.switch.end_epoch)
        checkpoint.load_weights(self.module, stored)
        loop = self.trainer.fit_loop
        loop.load_state_dict(stored.state["loops"]["fit_loop"])
        for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
            progress.completed = progress.processed  # a checkpoint is written just before this count
        loop.restarting = False
        loop._loaded_from_state_dict = False
        for callback in self.trainer.callbacks:
            state = stored.state["callbacks"].get(callback.state_key)
            if state is not None:
                callback.load_state_dict(state)

    def _prepare_loop(self, phase: Phase) -> None:
        loop = self.trainer.fit_loop
        if self.switch.end_epoch is not None:
            loop.max_epochs = self.switch.end_epoch
        if self.trainer.fast_dev_run:
            loop.epoch_loop.max_steps = (
                -1
            )  # it counts over all fits; limit_train_batches holds each fit short
        # Lightning refuses to clip where the turns run by hand; LitModel does it then.
        by_hand = phase.is_manual and self.clipping[0]
        self.module.clipping = self.clipping if by_hand else None
        self.trainer.gradient_clip_val = None if by_hand else self.clipping[0]
        self.module.automatic_optimization = not phase.is_manual


def _finds_unused(strategy: DDPStrategy) -> bool:
    return bool(strategy._ddp_kwargs.get("find_unused_parameters", False))
