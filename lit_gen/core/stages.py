"""The walk over tasks and phases: one Trainer.fit per phase, and the callback's part of it as a protocol."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy

from lit_gen.core import checkpoint
from lit_gen.core.checkpoint import Stored
from lit_gen.core.frozen import trainable
from lit_gen.core.module import LitModel
from lit_gen.core.one_fit import Anew, check_callbacks, is_out_of_time, known_monitors
from lit_gen.core.progress import Course, end_fit_at, epochs_done, is_inside_epoch, stored_epochs, take_over
from lit_gen.core.types import InputError, Phase, StreamData, Task

log = logging.getLogger(__name__)


@runtime_checkable
class Switch(Protocol):
    """What the walk asks of the one callback that puts module and data on a stage and keeps the place."""

    state_key: str
    stage: int  # place in `datamodule.stages`
    phase: int  # place in `module.phases(task)`
    course: Course  # how far the phase is
    ended: bool  # the phase's `end` has run
    stopped: bool  # a callback had ended the phase of the checkpoint before its length was reached
    current: tuple[Task, Phase] | None  # what is trained now

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the place that a checkpoint holds."""

    def finish(self, module: LitModel) -> None:
        """Runs the phase's `end`, once."""


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
        InputError: the Trainer's settings cannot carry this model's phases, or the checkpoint was written
            inside an epoch.
    """
    check_stages(trainer, module, datamodule)
    walk = _Walk(trainer, module, datamodule, max_phase_epochs)
    stored = checkpoint.read(ckpt_path) if ckpt_path is not None else None
    if stored is not None:
        if is_inside_epoch(stored.state):
            raise InputError(
                f"checkpoint {stored.path}: was written inside an epoch, from where no run goes on exactly; "
                "resume from the run's own last.ckpt"
            )
        walk.switch.load_state_dict(stored.place)
    first = (walk.switch.stage, walk.switch.phase)
    for stage in range(first[0], len(datamodule.stages)):
        task = datamodule.stages[stage]
        datamodule.current_task = task.index
        for number, phase in enumerate(module.phases(task)):
            if (stage, number) < first:
                continue
            walk.run(stage, number, task, phase, stored)
            stored = None
            if is_out_of_time(trainer):
                log.warning(
                    "trainer.max_time is over; stopped after phase %s of task %s", phase.name, task.name
                )
                return False
        if after_task is not None:
            after_task(task)
    return True


def stored_place(
    trainer: Trainer, module: LitModel, datamodule: StreamData, stored: Stored, most: int | None = None
) -> tuple[Task, Phase, Course]:
    """The task and the phase that a checkpoint was written in, and how far it was in its length of now.

    Args:
        most: epochs of a phase, see `fit_stages`.
    """
    walk, place = _Walk(trainer, module, datamodule, most), stored.place
    task = datamodule.stages[place["stage"]]
    datamodule.current_task = task.index
    phase = module.phases(task)[place["phase"]]
    course = walk.course(phase)
    course.load_state_dict(place["course"])
    return task, phase, course


def check_stages(
    trainer: Trainer, module: LitModel, datamodule: StreamData, settings: Mapping[str, Any] | None = None
) -> None:
    """Refuses settings of the Trainer that cannot mean the same over this model's phases.

    Args:
        settings: what the Trainer was made with, where that is known: more is checked then.

    Raises:
        InputError: the Trainer's settings cannot carry this model's phases.
    """
    is_union = any(stage not in datamodule.tasks for stage in datamodule.stages)
    _share_batches(trainer, module, datamodule)
    if module.needs_every_task and is_union:
        raise InputError(
            f"stream.joint=true: {type(module).__name__} learns task after task. Leave joint=false, "
            "or train a model of one task, such as model=multiband_local, on all tasks at once."
        )
    phases = [phase for task in datamodule.stages for phase in module.phases(task)]
    if any(phase.is_manual for phase in phases) and trainer.accumulate_grad_batches != 1:
        raise InputError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: this model runs its "
            "optimizer steps by hand, one per turn and batch. Set it to 1 and raise data.batch_size."
        )
    check_callbacks(trainer.callbacks, phases)
    _check_batches(trainer, module, datamodule)
    counts_steps = trainer.max_steps != -1 or any(p.steps or p.images for p in phases)
    if counts_steps and (trainer.min_epochs or trainer.min_steps):
        raise InputError(
            "trainer.min_epochs, trainer.min_steps: this run ends after a number of steps or images; leave "
            "them out."
        )
    _check_processes(trainer, phases, settings or {})
    _check_limits(trainer, datamodule)


def _check_limits(trainer: Trainer, datamodule: StreamData) -> None:
    """Refuses a part of the batches that is none of them, and validation at a batch that never comes."""
    limits = {name: getattr(trainer, f"limit_{name}_batches") for name in ("train", "val", "test")}
    parts = {name: limit for name, limit in limits.items() if isinstance(limit, float) and 0 < limit < 1}
    interval, is_within = trainer.val_check_interval, trainer.check_val_every_n_epoch is not None
    waits = is_within and isinstance(interval, int) and interval > 1
    before = datamodule.current_task
    for task in datamodule.stages if parts or waits else ():
        datamodule.current_task = task.index
        for name, limit in (parts | ({"train": limits["train"]} if waits else {})).items():
            count = math.ceil(len(getattr(datamodule, f"{name}_dataloader")()) / trainer.world_size)
            used = int(count * limit) if isinstance(limit, float) else min(count, limit)
            if used == 0:
                is_both = trainer.overfit_batches and name != "test"
                key = "overfit_batches" if is_both else f"limit_{name}_batches"
                raise InputError(
                    f"trainer.{key}={limit}: of the {count} batches of task {task.name} that is none. Give "
                    "a larger part, or a number of batches, such as 1."
                )
            if name == "train" and waits and interval > used:
                raise InputError(
                    f"trainer.val_check_interval={interval}: an epoch of task {task.name} has {used} batches."
                )
    datamodule.current_task = before


def _share_batches(trainer: Trainer, module: LitModel, datamodule: StreamData) -> None:
    """A batch of the size that the data say is divided among what trains together."""
    whole = getattr(datamodule, "global_batch_size", None)
    if whole is None:
        return
    world, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    before = datamodule.batch_size
    datamodule.share_batches(world, accumulated)
    for part in module.modules():
        if isinstance(part, LitModel):
            part.use_batches_of(datamodule.batch_size)
    if datamodule.batch_size != before and trainer.is_global_zero:
        log.info(
            "data.global_batch_size=%d: %d images in a batch, processes: %d, accumulated batches: %d",
            whole, datamodule.batch_size, world, accumulated,
        )  # fmt: skip


def _check_batches(trainer: Trainer, module: LitModel, datamodule: StreamData) -> None:
    size, world = getattr(datamodule, "batch_size", None), trainer.world_size
    if size is None or not any(getattr(part, "compares_images", False) for part in module.modules()):
        return
    shares = {task.name: math.ceil(task.num_images / world) for task in datamodule.stages}
    parts = world * trainer.accumulate_grad_batches
    alone = [t.name for t in datamodule.stages if 0 < t.num_images % (size * parts) < 2 * parts]
    if size == 1 or 1 in shares.values():
        raise InputError(
            f"data.batch_size={size}, with {min(shares.values())} images in the smallest task: what "
            f"{type(module).__name__} keeps apart are the codes of a batch, and one image has no others. "
            "Take batches of 2 images or more, better of 64."
        )
    if alone:
        log.warning(
            "data.batch_size=%d leaves one image alone in the last batch of every epoch (task %s), where the "
            "penalty keeps no codes apart; another size does not",
            size,
            ", ".join(alone),
        )


def _check_processes(trainer: Trainer, phases: list[Phase], settings: Mapping[str, Any]) -> None:
    strategy, device = settings.get("strategy"), trainer.strategy.root_device.type
    name = strategy if isinstance(strategy, str) else ""
    options = strategy if isinstance(strategy, Mapping) else {}
    spawns = any(way in name for way in ("spawn", "fork", "notebook"))
    if len(phases) > 1 and (spawns or options.get("start_method", "popen") != "popen"):
        raise InputError(
            "trainer.strategy=ddp_spawn (or ddp_notebook): this run has several phases, and spawned "
            "processes bring nothing back but weights. Use trainer=ddp."
        )
    if settings.get("sync_batchnorm") and device != "cuda":
        raise InputError(
            f"trainer.sync_batchnorm=true: torch has it for CUDA devices only, and this run is on {device}. "
            "Set it to false, or use trainer.accelerator=gpu."
        )
    finds_unused = "find_unused_parameters_true" in name or options.get("find_unused_parameters")
    takes_turns = any(len(phase.turns) > 1 for phase in phases)
    if settings and takes_turns and isinstance(trainer.strategy, DDPStrategy) and not finds_unused:
        raise InputError(
            "trainer.strategy=ddp: this model takes turns, each of which leaves parameters without "
            "gradient, and plain ddp stops at that. Use trainer=ddp_gan."
        )


class _Walk:
    """The Trainer, the module and what stays the same from stage to stage."""

    def __init__(
        self, trainer: Trainer, module: LitModel, datamodule: StreamData, max_phase_epochs: int | None
    ) -> None:
        self.trainer, self.module, self.datamodule = trainer, module, datamodule
        self.max_phase_epochs = max_phase_epochs
        limits = {"epochs": trainer.max_epochs, "steps": trainer.max_steps}
        self.default_length = {name: None if limit == -1 else limit for name, limit in limits.items()}
        self.clipping = (trainer.gradient_clip_val, trainer.gradient_clip_algorithm or "norm")
        switches = [callback for callback in trainer.callbacks if isinstance(callback, Switch)]
        if len(switches) != 1:
            raise RuntimeError(f"fit_stages needs one TaskSwitch among the callbacks, got {len(switches)}")
        self.switch = switches[0]
        self.anew = Anew(trainer.callbacks)

    def run(self, stage: int, number: int, task: Task, phase: Phase, stored: Stored | None) -> None:
        """One phase: what is left of it when it is the one stored in a checkpoint."""
        switch, course = self.switch, self.course(phase)
        if stored is None:
            switch.stage, switch.phase, switch.ended, switch.stopped = stage, number, False, False
            self.anew.begin()
            course.first_epoch = epochs_done(self.trainer)
        else:
            course.load_state_dict(switch.course.state_dict())
        switch.current, switch.course = (task, phase), course
        is_over = switch.ended or switch.stopped
        if stored is not None and (is_over or course.is_over_at(stored_epochs(stored.state))):
            self._take_over(stored)
        elif not trainable(*phase.trains):
            self.trainer.predict(self.module, datamodule=self.datamodule, return_predictions=False)
        else:
            self._prepare(phase)
            path = stored.path if stored else None
            with known_monitors():
                self.trainer.fit(self.module, datamodule=self.datamodule, ckpt_path=path)
        switch.finish(self.module)

    def course(self, phase: Phase) -> Course:
        """The course of a phase at its beginning: its own length, or else the Trainer's; cut short."""
        if self.trainer.fast_dev_run:
            return Course(epochs=1)
        own = {name: getattr(phase, name) for name in ("epochs", "steps", "images")}
        limits = own if any(limit is not None for limit in own.values()) else self.default_length
        longest = (limits["epochs"], self.max_phase_epochs)
        return Course(**limits | {"epochs": min((e for e in longest if e is not None), default=None)})

    def _take_over(self, stored: Stored) -> None:
        """A finished phase is not fitted again: weights, counters and callbacks are loaded."""
        self.module.enter(self.switch.current[1], self.switch.course)
        checkpoint.load_weights(self.module, stored)
        take_over(self.trainer, stored.state)
        for callback in self.trainer.callbacks:
            state = stored.state["callbacks"].get(callback.state_key)
            if state is not None:
                callback.load_state_dict(state)

    def _prepare(self, phase: Phase) -> None:
        course = self.switch.course
        end_fit_at(self.trainer, course.first_epoch if course.is_over else course.end_epoch)
        # Lightning refuses to clip where the turns run by hand; LitModel does it then.
        by_hand = phase.is_manual and self.clipping[0]
        self.module.clipping = self.clipping if by_hand else None
        self.trainer.gradient_clip_val = None if by_hand else self.clipping[0]
        self.module.automatic_optimization = not phase.is_manual
