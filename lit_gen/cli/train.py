"""lit-gen train: one run, from a configuration to scores, or the rest of one that was stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lightning import Trainer

from callbacks.run_record import status_of
from callbacks.scoring import Scoring
from lit_gen.cli.assembly import Given, Parts, assemble
from lit_gen.cli.config import Composed, as_yaml, compose
from lit_gen.cli.devices import moved_to
from lit_gen.cli.launchers import lost_processes, patience, rank, settle
from lit_gen.cli.lean import old_objects_left_alone
from lit_gen.cli.log import log_to
from lit_gen.cli.longer import LENGTHS, asks_longer, check_longer, moment_of
from lit_gen.cli.run_folder import (
    CONFIG,
    SUMMARY,
    RunFolder,
    found_folder,
    is_of_stream,
    new_folder,
    refuse_changes,
)
from lit_gen.cli.stop import Stop, told_to_stop
from lit_gen.cli.words import own_words
from lit_gen.core.checkpoint import Stored
from lit_gen.core.files import disk_failure, remove_unfinished, write_text
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Diverged, InputError, Task
from lit_gen.evaluation.tables import as_text
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.mlflow import TrackingLogger
from lit_gen.tracking.provenance import git_commit, package_versions

HELP = """lit-gen train [experiment=NAME] [GROUP=NAME ...] [KEY=VALUE ...]
lit-gen train resume=RUN_FOLDER_OR_CHECKPOINT [KEY=VALUE ...]

Trains a model, task after task, scores it after every task, and keeps everything in a run folder
(runs/<model>-<data>[-<stream>]-s<seed>-<id>, or output_dir=).

  experiment=    a named run; GROUP=NAME and KEY=VALUE change it
  resume=        goes on with a run that was stopped, exactly as if it had not been; only trainer.*, logger.*
                 and data.root can be changed, and trainer=NAME changes its devices and strategy alone;
                 config.yaml stays, changes stand in config.resumed-1.yaml; with output_dir= what comes is a
                 new run in a folder of its own, and the data may have changed; a finished run is trained
                 longer by more of its last phase (trainer.max_epochs=) or by more tasks (stream.num_tasks=)
  scores=later   leaves the scores to lit-gen evaluate ckpt=RUN@all, beside the training with follow=true
  seed=          0 is a seed
  --cfg          prints the configuration and stops

Examples
  lit-gen train experiment=quickstart
  lit-gen train experiment=vae_mnist data.root=~/data model.latent_size=32
  lit-gen train model=vae net=conv data=cifar10 recipe=vae trainer=ddp trainer.devices=4
  lit-gen train resume=runs/vae-digits-s0-1a2b3c
  lit-gen train resume=runs/vae-digits-s0-1a2b3c trainer.max_epochs=20
  lit-gen train model=vae data=image_folder data.root=my/photos data.spec.channels=3 data.spec.size=64
"""

log = logging.getLogger(__name__)


def run(words: list[str]) -> int:
    with told_to_stop() as stop, ExitStack() as at_the_end:
        return _run(words, stop, at_the_end)


def _run(words: list[str], stop: Stop, at_the_end: ExitStack) -> int:
    own, others = own_words(words, {"resume": str})
    if own.get("resume", "null") == "null":
        start(compose("train", others), stop, at_the_end)
        return 0
    resume(own["resume"], others, stop, at_the_end)
    return 0


def start(composed: Composed, stop: Stop, at_the_end: ExitStack, given: Given | None = None) -> RunFolder:
    """Trains a new run to its end. In its folder, whose lock is released `at_the_end`.

    Args:
        given: objects that the configuration only describes.

    Raises:
        InputError: something in the configuration or the files cannot be used; nothing is left behind.
        SystemExit: it has ended before, and said why.
    """
    composed = composed.anchored()
    settle(composed.config["trainer"])
    folder = new_folder(composed.config["output_dir"], composed.choices, composed.config["seed"])
    composed.config["output_dir"] = composed.source["output_dir"] = str(folder.path)
    at_the_end.callback(folder.lock.release)
    folder.make()
    log_to(folder.path / "log.txt" if rank() == 0 else None)
    _write_config(composed, folder)
    with _discarded_unless_it_begins(folder):
        parts = assemble(composed, folder, None, {}, given)
        _write_start(parts, folder)
    _train(parts, folder, None, stop, composed.config["max_phase_epochs"], folder.discard)
    return folder


def resume(
    place: str, others: Sequence[str], stop: Stop, at_the_end: ExitStack, given: Given | None = None
) -> RunFolder:
    """Goes on with a run to its end; a finished one is trained longer where the words say so.

    Args:
        place: a run folder or a checkpoint in it.
        others: words over its configuration.
        given: see `start`.

    Raises:
        InputError: it cannot be gone on with, or not with these words; nothing has been changed.
        SystemExit: it has ended before, and said why.
    """
    folder, (moved, others) = found_folder(place), own_words(others, {"output_dir": str})
    is_new = "output_dir" in moved
    refuse_changes(others)
    is_over = folder.is_finished and not Path(place).is_file()
    is_longer = is_over and asks_longer(others)
    if is_longer:
        place = str(moment_of(folder, others))
    elif is_over and others and not is_new:
        raise InputError(
            f"{' '.join(others)}: would change nothing, since the run in {folder.path} is finished. "
            "trainer.max_epochs= or a longer stream trains it longer; another run leaves resume= out"
        )
    if folder.is_finished and not is_new and not is_longer:
        print(f"{folder.path}: this run is finished; there is nothing left to do.")
        return folder
    at_the_end.callback(folder.lock.release)
    if rank() == 0 and not is_new:
        folder.lock.take()
    log_to(None if is_new or rank() else folder.path / "log.txt", logging.WARNING)
    stored, begun = folder.stored(place), folder.read_start()
    if (adds_tasks := any(map(is_of_stream, others))) and stored is None:
        raise InputError("stream.*: this run has no checkpoint yet; train anew with the longer stream")
    if is_new:
        folder = folder.branch(Path(moved["output_dir"]).absolute(), stored)
        at_the_end.callback(folder.lock.release)
    # config.yaml alone is enough: it says the same, with every interpolation already done.
    source = stored.config if stored is not None else begun.get("source")
    source = source or folder.read_config()
    composed = moved_to(source | {"output_dir": str(folder.path)}, others).anchored()
    settle(composed.config["trainer"])
    changes = folder.changes(source, composed.source)
    if rank() == 0 and not is_new:
        folder.lock.take()
        remove_unfinished(folder.path)
    folder.hand_on()
    log_to(folder.path / "log.txt" if rank() == 0 else None)
    if is_new:
        _write_config(composed, folder)
    most = composed.config["max_phase_epochs"]
    with _discarded_unless_it_begins(folder) if is_new else nullcontext():
        parts = assemble(composed, folder, stored, begun, given)
        if adds_tasks or is_longer:
            check_longer(parts.trainer, parts.module, parts.data, stored, most, adds_tasks)
            if adds_tasks and rank() == 0:
                parts.data.save_split(folder.path / "split")
            parts.record.continues_end = is_longer and not is_new
            parts.record.keeps_rows = parts.record.continues_end and not adds_tasks
        _write_start(parts, folder)
    if is_new and rank() == 0:
        log.warning("a new run, which goes on from %s with the data as they are now", stored.path)
    elif not is_new:
        if stored is None and rank() == 0:
            (folder.path / SUMMARY).unlink(missing_ok=True)  # that run has begun again
        if changes and rank() == 0:  # not before: what was refused has changed nothing
            folder.write_changes(changes)
        if (differences := _differences(changes, stored, parts.trainer)) and rank() == 0:
            log.warning(
                "from here on this run may differ from an uninterrupted one: %s", ", ".join(differences)
            )
    _train(parts, folder, stored, stop, most, folder.discard if is_new else folder.lock.release)
    return folder


@contextmanager
def _discarded_unless_it_begins(folder: RunFolder) -> Iterator[None]:
    """A new run that is refused leaves no folder."""
    try:
        yield
    except BaseException:
        if rank() == 0:
            log_to(None)
            folder.discard()
        raise


def _write_start(parts: Parts, folder: RunFolder) -> None:
    if rank() == 0:
        folder.write_start(cpu_threads=parts.record.cpu_threads, about=parts.record.about)


def _train(
    parts: Parts,
    folder: RunFolder,
    stored: Stored | None,
    stop: Stop,
    max_phase_epochs: int | None,
    leave: Callable[[], None],
) -> None:
    trainer, module, data, record, saver = parts

    def after_task(task: Task) -> None:
        trainer.test(module, datamodule=data, verbose=False)
        if not trainer.fast_dev_run:
            saver.save(trainer, task)

    if rank() == 0:
        log.info("run folder: %s", folder.path)
    path = stored.path if stored is not None else None
    try:
        with old_objects_left_alone(), patience(trainer.strategy, leave):
            reached_end = fit_stages(trainer, module, data, path, after_task, max_phase_epochs)
    except (KeyboardInterrupt, SystemExit):
        # Lightning turns Ctrl-C into SystemExit after it has told the callbacks.
        record.finish("KILLED", trainer)
        if rank() == 0:
            log.warning("stopped; go on with: lit-gen train resume=%s", folder.path)
        raise SystemExit(stop.exit_code) from None
    except BaseException as error:
        record.finish(status_of(error), trainer)
        if stop.code is not None:  # in another process than the first, which has ended
            raise SystemExit(stop.code) from None
        if isinstance(error, Diverged):
            if rank() == 0:
                log.error("%s", error)
            raise SystemExit(1) from None
        if said := disk_failure(error):
            log.error("%s. Make room, then go on with: lit-gen train resume=%s", said, folder.path)
            raise SystemExit(1) from None
        if gone := lost_processes(trainer.strategy):
            log.error("%s. Go on with: lit-gen train resume=%s", "; ".join(gone), folder.path)
            raise SystemExit(1) from None
        raise
    stop.is_late = True
    record.finish("FINISHED" if reached_end else "KILLED")
    if rank() == 0:
        _say_goodbye(trainer, folder)
        if not reached_end:
            log.warning("out of time; go on with: lit-gen train resume=%s", folder.path)


def _say_goodbye(trainer: Trainer, folder: RunFolder) -> None:
    """The matrix of scores, where everything is, and how to look at it."""
    for callback in trainer.callbacks:
        if isinstance(callback, Scoring):
            print(f"\n{callback.board.table()}".rstrip())
            for name, reason in callback.left_out.items():
                print(f"\n{name}: not scored. {reason}")
    if len(tasks := folder.read_summary()["tasks"]) > 1:
        print(f"\n{as_text(tasks, 'what each task has cost')}")
    place = min(os.path.relpath(folder.path), str(folder.path), key=len)
    print(f"\nRun folder: {place}")
    if any(isinstance(each, Scoring) and each.judges and not each.asks for each in trainer.callbacks):
        print(f"Score it: lit-gen evaluate ckpt={place}@all")
    for logger in trainer.loggers:
        if isinstance(logger, TrackingLogger) and not logger.is_behind:
            print(f"Look at it: {logger.view_command()}")


def _write_config(composed: Composed, folder: RunFolder) -> None:
    """Without user and password of a tracking server; they are read from the environment when resuming."""
    if rank() == 0:
        folder.write_start(source=without_secrets(composed.source))
        write_text(folder.path / CONFIG, as_yaml(without_secrets(composed.config)))


def _differences(changes: Mapping[str, Any], stored: Stored | None, trainer: Trainer) -> list[str]:
    """What numbers depend on and is no longer as it was when the run was stopped."""
    found = [
        f"{key}={'null' if change['now'] is None else change['now']}"
        for key, change in changes.items()
        if key.partition(".")[0] in ("trainer", "cpu_threads", "compile") and key not in LENGTHS
    ]
    if stored is None:
        return found
    record = stored.record
    before = {**record["versions"], "commit": record["git_commit"], "processes": record["world_size"]}
    now = {**package_versions(), "commit": git_commit(), "processes": trainer.world_size}
    return found + [
        f"{name} {before.get(name)} -> {now[name]}" for name in now if now[name] != before.get(name)
    ]
