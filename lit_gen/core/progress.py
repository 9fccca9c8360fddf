"""How far a run and its phase are. The only place that knows where Lightning counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightning import Trainer

from lit_gen.core.types import Dealt


def batches_seen(trainer: Trainer) -> int:
    """Training batches since the run began, the current one included; loggers count by it.

    Not `trainer.global_step`: it counts every optimizer's steps.
    """
    return trainer.fit_loop.total_batch_idx + 1


def batches_of_epoch(trainer: Trainer) -> int:
    """Training batches of the current epoch that were handed to the model, the current one included."""
    return trainer.fit_loop.batch_idx + 1


def dealt(trainer: Trainer, size: int, batch_idx: int) -> Dealt:
    """How many images a training batch of this size has; all of them, where its sampler does not say."""
    ask = getattr(getattr(trainer.train_dataloader, "sampler", None), "dealt", None)
    return ask(batch_idx) if ask is not None else Dealt(size, size * trainer.world_size)


def images_of_epoch(trainer: Trainer) -> int:
    """Training images of an epoch of the current fit, over all processes."""
    size, batches = getattr(trainer.datamodule, "batch_size", 1), int(trainer.num_training_batches)
    return sum(dealt(trainer, size, batch).images for batch in range(batches))


def epochs_done(trainer: Trainer) -> int:
    """Training epochs since the run began; at the end of an epoch that one is done."""
    return trainer.fit_loop.epoch_progress.current.processed


def stored_epochs(state: Mapping[str, Any]) -> int:
    """Training epochs behind a checkpoint, `Stored.state`."""
    return state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]


def is_inside_epoch(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written before its epoch had ended."""
    epochs = state["loops"]["fit_loop"]["epoch_progress"]["current"]
    return epochs["ready"] != epochs["processed"]


def end_fit_at(trainer: Trainer, epoch: int | None) -> None:
    """The next fit ends when the run has had so many epochs; None: when `should_stop` says so."""
    trainer.fit_loop.max_epochs = -1 if epoch is None else epoch
    trainer.fit_loop.epoch_loop.max_steps = -1  # Lightning's counts over all fits and optimizers


def take_over(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Puts the counters of a checkpoint into the Trainer, for fits that begin where it stands."""
    loop = trainer.fit_loop
    loop.load_state_dict(state["loops"]["fit_loop"])
    for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
        progress.completed = progress.processed  # a checkpoint is written just before this count
    loop.restarting = False


@dataclass
class Course:
    """How far a phase is, and its end: the first of its limits that is reached.

    Attributes:
        epochs, steps, images: limits, as in `Phase`.
        first_epoch: epochs of the run before the phase.
        batches_done, steps_done, images_done: since the phase began, the current batch included; images are
            counted when the step comes that they are for.
        part_before, steps_before, images_before: what was done when the length was changed last, by a resume.
        last_step, last_image: with which the phase ends.
    """

    epochs: int | None = None
    steps: int | None = None
    images: int | None = None
    first_epoch: int = 0
    batches_done: int = 0
    steps_done: int = 0
    images_done: int = 0
    part_before: float = 0.0
    steps_before: int = 0
    images_before: int = 0
    last_step: int | None = None
    last_image: int | None = None
    _waiting: int = 0

    def begin(self, images_per_epoch: int, epoch: int) -> None:
        """At the start of a fit, when the run has had so many epochs. Where what is left has become longer or
        shorter since the checkpoint, the part that is left is spread over it; where none was left, the phase
        counts as if it had been that long from its start."""
        left = None if self.epochs is None else (self.end_epoch - epoch) * images_per_epoch
        ends = [self.images, None if left is None else self.images_done + left]
        last = (self.steps, min((end for end in ends if end is not None), default=None))
        before = (self.last_step, self.last_image)
        if before not in ((None, None), last):
            is_done = self.part >= 1
            self.part_before = 0.0 if is_done else self.part
            self.steps_before = 0 if is_done else self.steps_done
            self.images_before = 0 if is_done else self.images_done
        self.last_step, self.last_image = last

    def count(self, images: int, is_step: bool) -> None:
        """One batch more.

        Args:
            images: in the batches of all processes.
            is_step: an optimizer step follows; False where gradients are accumulated.
        """
        self.batches_done += 1
        self._waiting += images
        if is_step:
            self.steps_done += 1
            self.images_done += self._waiting
            self._waiting = 0

    @property
    def part(self) -> float:
        """The part of the phase that is done, in [0, 1], by images or steps; 0 for a phase without end. Of a
        phase of epochs it is that of the images, the same for any number of processes."""
        counts = (
            (self.steps_done, self.steps_before, self.last_step),
            (self.images_done, self.images_before, self.last_image),
        )
        parts = [(done - first) / max(1, last - first) for done, first, last in counts if last is not None]
        return min(1.0, self.part_before + (1 - self.part_before) * max(parts, default=0.0))

    @property
    def end_epoch(self) -> int | None:
        """Epochs of the run at which the phase ends at the latest."""
        return None if self.epochs is None else self.first_epoch + self.epochs

    def is_over_at(self, epoch: int) -> bool:
        """Whether any of the limits is reached when the run has had so many epochs."""
        return self.is_over or (self.end_epoch is not None and epoch >= self.end_epoch)

    @property
    def is_over(self) -> bool:
        """Whether enough steps or images are done; epochs are counted by the Trainer."""
        counts = ((self.steps_done, self.steps), (self.images_done, self.images))
        return any(limit is not None and done >= limit for done, limit in counts)

    def state_dict(self) -> dict[str, int | float | None]:
        names = {each.name for each in fields(self)} - {"epochs", "steps", "images", "_waiting"}
        return {name: getattr(self, name) for name in sorted(names)}

    def load_state_dict(self, state: Mapping[str, int | float | None]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
