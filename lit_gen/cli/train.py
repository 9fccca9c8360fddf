"""lit-gen train: one run, from a configuration to scores, or the rest of one that was stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoints import RunCheckpoints
from callbacks.continual_scores import ContinualScores
from callbacks.run_record import RunRecord, cleaned, status_of
from callbacks.shared_buffers import SharedBuffers
from callbacks.task_switch import TaskSwitch, check_stages, fit_stages
from lit_gen.cli.arguments import split_words
from lit_gen.cli.compose import Composed, as_yaml, build, compose, plain_errors, recompose
from lit_gen.cli.lean import NoProfiler, old_objects_left_alone, without_empty_hooks, without_gpu_checks
from lit_gen.cli.log import log_to
from lit_gen.cli.run_folder import CONFIG, RunFolder, found_folder, new_folder, rank, write_atomically
from lit_gen.cli.threads import use_threads
from lit_gen.core.checkpoint import Stored, has_checkpoint, read, read_newest
from lit_gen.core.module import LitModel
from lit_gen.core.types import Diverged, InputError, StreamData, Task
from lit_gen.tracking.metrics_file import MetricsFile
from lit_gen.tracking.mlflow_tracking import TrackingLogger

HELP = """lit-gen train [experiment=NAME] [GROUP=NAME ...] [KEY=VALUE ...]
lit-gen train resume=RUN_FOLDER_OR_CHECKPOINT [KEY=VALUE ...]

Trains a model, task after task, scores it after every task, and keeps everything in a run folder
(runs/<model>-<data>[-<stream>]-s<seed>-<id>, or output_dir=).

  experiment=    a named run; GROUP=NAME and KEY=VALUE change it
  resume=        goes on with a run that was stopped, exactly as if it had not been; only trainer.*, logger.*
                 and data.root can be changed
  seed=          0 is a seed
  --cfg          prints the configuration and stops

Examples
  lit-gen train experiment=quickstart
  lit-gen train experiment=vae_mnist data.root=~/data model.latent_size=32
  lit-gen train model=vae_conv data=cifar10 trainer=ddp trainer.devices=4
  lit-gen train resume=runs/vae-digits-s0-1a2b3c
  lit-gen train model=vae data=image_folder data.root=my/photos data.spec.channels=3 data.spec.size=64
"""

log = logging.getLogger(__name__)

_MAY_CHANGE = ("trainer", "logger", "data.root", "checkpoint", "cpu_threads")


class EpochTimer(Timer):
    """Begins anew when a run is resumed: `max_time` is the time of one start, as a cluster counts it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Parts(NamedTuple):
    """What a run is made of."""

    trainer: Trainer
    module: LitModel
    data: StreamData
    record: RunRecord
    saver: RunCheckpoints


def run(words: list[str]) -> int:
    own, others = split_words(words, ("resume",))
    resume = own.get("resume", "null")
    stored, start = None, {}
    if resume in ("null", ""):
        composed = compose("train", others)
        folder = new_folder(composed.config, composed.choices)
        composed = _inside(composed.source, folder, [])
    else:
        folder = found_folder(resume)
        if folder.is_finished:
            print(f"{folder.path}: this run is finished; there is nothing left to do.")
            return 0
        stored, start = _stored(resume, folder), folder.read_start()
        composed = _inside(_source(stored, start, folder), folder, _allowed(others))
    log_to(folder.path / "log.txt" if rank() == 0 else None)
    if rank() == 0:
        # Without user and password of a tracking server; they are read from the environment when resuming.
        folder.write_start(source=cleaned(composed.source))
        write_atomically(folder.path / CONFIG, as_yaml(cleaned(composed.config)))
    seed_everything(composed.config["seed"], workers=True, verbose=False)
    try:
        parts = assemble(composed, folder, stored, start)
    except InputError:
        if resume in ("null", "") and rank() == 0:
            log_to(None)
            folder.discard()
        raise
    _train(parts, folder, stored, composed)
    return 0


def assemble(composed: Composed, folder: RunFolder, stored: Stored | None, start: dict[str, Any]) -> Parts:
    """Builds everything that a run needs, and settles the number of threads.

    Raises:
        InputError: something in the configuration or the files cannot be used.
    """
    config = composed.config
    data = composed.build("data")
    data.prepare_data()
    data.setup("fit")
    if rank() == 0:
        data.save_split(folder.path / "split")
    module = composed.build("model")
    saver = RunCheckpoints(folder.checkpoints, config["checkpoint"]["min_seconds"])
    record = RunRecord(folder.path, config, composed.source)
    callbacks = _in_order(composed, config["seed"], record, saver)
    trainer_node, timer = _without_max_time(config["trainer"])
    if trainer_node.get("profiler") is None:
        trainer_node = trainer_node | {"profiler": NoProfiler()}
    loggers = [MetricsFile(folder.path), *_loggers(composed)]
    trainer = build(
        trainer_node,
        "trainer",
        callbacks=[*callbacks, *timer],
        logger=loggers,
        default_root_dir=str(folder.path),
    )
    check_stages(trainer, module, data)
    chosen = stored.record.get("cpu_threads") if stored is not None else start.get("cpu_threads")
    record.cpu_threads = use_threads(config["cpu_threads"], chosen, trainer, module, data)
    without_gpu_checks(trainer)
    without_empty_hooks(module, trainer.callbacks)
    if rank() == 0:
        folder.write_start(cpu_threads=record.cpu_threads)
    return Parts(trainer, module, data, record, saver)


def _train(parts: Parts, folder: RunFolder, stored: Stored | None, composed: Composed) -> None:
    trainer, module, data, record, saver = parts

    def after_task(task: Task) -> None:
        trainer.test(module, datamodule=data, verbose=False)
        if not trainer.fast_dev_run:
            saver.save(trainer, task)

    if rank() == 0:
        log.info("run folder: %s", folder.path)
    path = stored.path if stored is not None else None
    try:
        with old_objects_left_alone():
            reached_end = fit_stages(
                trainer, module, data, path, after_task, composed.config["max_phase_epochs"]
            )
    except (KeyboardInterrupt, SystemExit, SIGTERMException) as stop:
        # Lightning turns Ctrl-C into SystemExit after it has told the callbacks.
        record.finish("KILLED")
        if rank() == 0:
            log.warning("stopped; go on with: lit-gen train resume=%s", folder.path)
        raise SystemExit(130 if not isinstance(stop, SIGTERMException) else 143) from None
    except Diverged as end:
        record.finish("FAILED")
        if rank() == 0:
            log.error("%s", end)
        raise SystemExit(1) from None
    except BaseException as error:
        record.finish(status_of(error))
        raise
    record.finish("FINISHED" if reached_end else "KILLED")
    if rank() == 0:
        _say_goodbye(trainer, folder)
        if not reached_end:
            log.warning("out of time; go on with: lit-gen train resume=%s", folder.path)


def _say_goodbye(trainer: Trainer, folder: RunFolder) -> None:
    """The matrix of scores, where everything is, and how to look at it."""
    for callback in trainer.callbacks:
        if isinstance(callback, ContinualScores) and (table := callback.table()):
            print(f"\n{table}")
    print(f"\nRun folder: {_short(folder.path)}")
    for logger in trainer.loggers:
        if isinstance(logger, TrackingLogger) and not logger.is_silent:
            print(f"Look at it: {logger.view_command()}")


def _inside(source: dict[str, Any], folder: RunFolder, overrides: Sequence[str]) -> Composed:
    """The configuration with the folder's place in it, for the callbacks that write there."""
    return recompose(source | {"output_dir": str(folder.path)}, overrides)


def _stored(resume: str, folder: RunFolder) -> Stored | None:
    """The checkpoint to go on from; None for a run that was stopped before its first one."""
    if Path(resume).is_file():
        return read(resume)
    if has_checkpoint(folder.path):
        return read_newest(folder.path)
    log.warning("%s has no checkpoint yet; the run begins again", folder.path)
    return None


def _source(stored: Stored | None, start: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    if stored is not None:
        return stored.config
    # config.yaml alone is enough: it says the same, with every interpolation already done.
    return start.get("source") or yaml.safe_load((folder.path / CONFIG).read_text(encoding="utf-8"))


def _allowed(overrides: Sequence[str]) -> list[str]:
    """What a resumed run may have otherwise: where and how it runs, not what it computes."""
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE):
            raise InputError(
                f"{word}: a resumed run goes on as it began; only {', '.join(_MAY_CHANGE)} can be changed. "
                "For another run leave resume= out."
            )
    return list(overrides)


def _in_order(composed: Composed, seed: int, record: RunRecord, saver: RunCheckpoints) -> list[Callback]:
    """The switch first, since it seeds; the record after the scores that it reads; checkpoints last."""
    chosen = [composed.build(f"callbacks.{name}") for name in composed.config["callbacks"] or {}]
    first = [TaskSwitch(seed), SharedBuffers()]
    return [*first, *(callback for callback in chosen if callback is not None), record, saver]


def _loggers(composed: Composed) -> list[Any]:
    logger = composed.build("logger")
    return [] if logger is None else [logger]


def _without_max_time(node: dict[str, Any]) -> tuple[dict[str, Any], list[Callback]]:
    """Lightning's own timer stops inside an epoch, from where no run is resumed; this one does not."""
    limit = node.get("max_time")
    if limit is None:
        return node, []
    with plain_errors(f"trainer.max_time={limit!r}"):
        return node | {"max_time": None}, [EpochTimer(limit, interval="epoch")]


def _short(path: Path) -> str:
    """Relative to where the user is, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
