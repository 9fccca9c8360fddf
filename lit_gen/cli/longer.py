"""A run that has reached its end, trained longer: its last phase, or by more tasks of a longer stream."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer

from lit_gen.cli.run_folder import RunFolder, is_of_stream
from lit_gen.cli.words import key_of
from lit_gen.core.checkpoint import LAST, PREVIOUS, Stored, load_weights, read
from lit_gen.core.module import LitModel
from lit_gen.core.progress import stored_epochs
from lit_gen.core.stages import stored_place
from lit_gen.core.types import InputError, StreamData

log = logging.getLogger(__name__)

LENGTHS = ("trainer.max_epochs", "trainer.max_steps")


def asks_longer(words: Sequence[str]) -> bool:
    """Whether words could make a finished run longer."""
    return any(key_of(word) in LENGTHS or is_of_stream(word) for word in words)


def moment_of(folder: RunFolder, words: Sequence[str]) -> Path:
    """The checkpoint from which a finished run goes on: the last one where tasks are added, else the one from
    before the last phase that trains was ended, since what a model does there may leave no way back.

    Raises:
        InputError: that one is not kept.
    """
    last, before = (folder.path / "checkpoints" / name for name in (LAST, PREVIOUS))
    if any(map(is_of_stream, words)):
        return last
    if before.is_file():
        here, end = read(before).place, read(last).place
        # A phase of the same task that comes after it trains nothing, and is run through again.
        if not here["ended"] and here["stage"] == end["stage"]:
            return before
    raise InputError(
        f"resume={folder.path}: {before} is not the moment before the last phase was ended, from which it "
        "could be trained longer. Train anew, or go on from an earlier checkpoint with output_dir="
    )


def check_longer(
    trainer: Trainer, module: LitModel, data: StreamData, stored: Stored, most: int | None, adds_tasks: bool
) -> None:
    """Says how a longer run differs from one that was as long from its start.

    Args:
        most: epochs of a phase, `max_phase_epochs`.

    Raises:
        InputError: nothing would be trained, or the model has no room for more tasks.
    """
    if adds_tasks:
        if len(data.stages) <= stored.stage + 1:
            raise InputError(
                f"stream.*: would change nothing; {stored.path} is at task {stored.stage} and the stream has "
                f"{len(data.stages)} to be trained one after the other. Give it more: stream.num_tasks="
            )
        try:
            load_weights(module, stored)
        except InputError as error:
            raise InputError(
                f"stream.num_tasks={len(data.tasks)}: the model is sized by the number of tasks. {error}"
            ) from error
        return
    task, phase, course = stored_place(trainer, module, data, stored, most)
    done = stored_epochs(stored.state) - course.first_epoch
    what = f"phase {phase.name}" + (f" of task {task.name}" if len(data.tasks) > 1 else "")
    if stored.place["stopped"]:
        raise InputError(
            f"resume={stored.path}: a callback, such as early stopping, has ended {what}, and would end it "
            "again. Train anew with another one"
        )
    if course.is_over_at(stored_epochs(stored.state)):
        is_own = any(getattr(phase, name) is not None for name in ("epochs", "steps", "images"))
        why = "lasts as long as the model says" if is_own else f"has had {done} epochs, which is no less"
        raise InputError(
            f"{' or '.join(LENGTHS)}: would change nothing, since {what} {why}. Ask for more, or train anew"
        )
    schedule, effect = phase.schedule or module.schedule, "such as a warm-up"
    if schedule is not None and course.epochs:
        effect = f"the learning rate too ({schedule(1.0):.3g} of its first value at the end, "
        effect += f"{schedule(done / course.epochs):.3g} from here on)"
    log.info(
        "%s goes on after %d epochs, up to %s. What goes by the part of a phase that is done, %s, goes by "
        "the longer phase now; all else is as if it had been that long from the start",
        *(what, done, f"{course.steps:,} steps" if course.steps else f"{course.epochs} epochs", effect),
    )
