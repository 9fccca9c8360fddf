"""What a run leaves behind: its configuration in every checkpoint, its MLflow run, a summary at the end."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_gen.core.checkpoint import CHECKPOINT_KEY, FORMAT, LAST
from lit_gen.core.files import CannotWrite, name_too, write_json
from lit_gen.core.module import LitModel
from lit_gen.core.progress import batches_seen, dealt
from lit_gen.evaluation.board import Board
from lit_gen.evaluation.note import in_tags
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.metrics_file import MetricsFile
from lit_gen.tracking.mlflow import Status, TrackingLogger
from lit_gen.tracking.provenance import (
    PhaseTimes,
    about_run,
    costs,
    device_name,
    git_commit,
    package_versions,
)
from lit_gen.tracking.replay import clock_of, replay, tell_about, tell_costs


class RunRecord(Callback):
    """Keeps what is needed to rebuild, resume and compare the run, in the trainer's `default_root_dir`.

    Args:
        config: plain and resolved; becomes MLflow's parameters.
        source: plain, before interpolation; becomes part of every checkpoint, without user and password in
            addresses.
        board: whose summary becomes part of the run's.

    Attributes:
        cpu_threads: that the run uses.
        about: see `about_run`; {}: it is found out when it is needed.
        continues_end: the run had reached its end and is trained longer. With its first checkpoint, and not
            before, it gives up that end and keeps it under other names: `summary.finished-1.json` and so on.
        keeps_rows: all that was logged stays, also what the checkpoint does not know of: the scores of an end
            beside those of the next one.
    """

    def __init__(self, config: Mapping[str, Any], source: Mapping[str, Any], board: Board) -> None:
        self.config, self.source, self.board = dict(config), without_secrets(source), board
        self.cpu_threads = torch.get_num_threads()
        self.about: dict[str, Any] = {}
        self.continues_end = self.keeps_rows = False
        self._trainer: Trainer | None = None
        self._times = PhaseTimes()
        self._started = time.monotonic()  # earlier by what the run had taken before it was resumed
        # A run that begins anew in its folder, killed before its first checkpoint, drops all it logged there.
        self._rows_to_keep: float | None = 0
        self._rows_before_test: int | None = None  # in a test and until the next fit
        self._finished: Status | None = None

    # --- in the checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {
            "wall_seconds": self.wall_seconds,
            "phases": self._times.report(),
            "last_step": batches_seen(self._trainer) - 1,
            # From a checkpoint that was written after a test, the resumed run tests again.
            "metric_rows": self._rows if self._rows_before_test is None else self._rows_before_test,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._started = time.monotonic() - state_dict["wall_seconds"]
        self._times.load(state_dict["phases"])
        self._rows_to_keep = math.inf if self.keeps_rows else state_dict["metric_rows"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.continues_end and trainer.is_global_zero:
            _keep_end(Path(trainer.default_root_dir))
        self.continues_end = False
        # What is in the checkpoint must not be lost from the file when the run is killed right after.
        for file in self._loggers(MetricsFile):
            file.flush()
        for logger in trainer.loggers:
            logger.save()  # TensorBoard would keep them back for two minutes
        checkpoint[CHECKPOINT_KEY] = {
            "format": FORMAT,
            "version": package_versions().get("lit-gen", "?"),
            "config": self.source,
            "cpu_threads": self.cpu_threads,
            "label_counts": [list(task.label_counts) for task in trainer.datamodule.tasks],
            **self._provenance(),
        }

    # --- along the run

    @property
    def wall_seconds(self) -> float:
        """Seconds of work on this run, resumed parts included."""
        return time.monotonic() - self._started

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        is_new, self._trainer = self._trainer is None, trainer
        for file in self._loggers(MetricsFile):
            file.epoch = lambda: trainer.current_epoch
        trackers = self._loggers(TrackingLogger) if is_new and trainer.is_global_zero else ()
        for tracker in trackers:
            tracker.log_hyperparams(self.config)
            place = (trainer.strategy.root_device, trainer.world_size)
            tell_about(tracker, self.about or about_run(trainer.datamodule, *place))
            for file in sorted(Path(trainer.default_root_dir).glob("config*.yaml")):
                self._keep_text(file.name)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ready_metrics_file()  # not in `setup`: a checkpoint's state is loaded after it
        self._rows_before_test = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ready_metrics_file()
        self._rows_before_test = self._rows

    def on_train_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._times.enter(trainer.datamodule.current_task, pl_module.phase.name)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._times.go()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._times.count(dealt(trainer, batch.size, batch_idx).images)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._times.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._times.go()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._times.stop()
        self._times.keep(pl_module.memory_bytes())

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_text("scores.csv")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._times.stop()
        self.finish(status_of(exception))

    @rank_zero_only
    def finish(self, status: Status, trainer: Trainer | None = None) -> None:
        """Writes summary.json and ends the run in MLflow, once: the first status counts.

        Args:
            trainer: for a run that ended before it was set up.
        """
        self._trainer = trainer = self._trainer or trainer
        if self._finished is not None or trainer is None:
            return
        if self.continues_end:
            status = "FINISHED"  # as it was found
        self._finished = ended = status
        folder = Path(trainer.default_root_dir)
        summary = {
            "status": status,
            "scores": {name: numbers._asdict() for name, numbers in self.board.summary().items()},
            "wall_seconds": round(self.wall_seconds, 3),
            "phases": self._times.report(),
            "tasks": costs(self._times.report()),
            "batches": batches_seen(trainer),
            "seed": self.config.get("seed"),
            "cpu_threads": self.cpu_threads,
            "device": device_name(trainer.strategy.root_device),
            **self._provenance(),
        }
        full = None
        try:
            for file in self._loggers(MetricsFile):
                file.flush()
            if not self.continues_end:
                write_json(folder / "summary.json", summary)
        except CannotWrite as failure:
            full, ended = failure, "FAILED"
        self._keep_text("summary.json")
        for tracker in self._loggers(TrackingLogger):
            if tracker.courier.lacks:
                place = (folder, self.about, clock_of(folder))
                replay(tracker, *place, list(self.board.rows), in_tags(self.board), summary)
            else:
                tell_costs(tracker, summary)
            tracker.finish(ended, folder / "checkpoints" / LAST)
        if full is not None and status != "FAILED":  # where it had failed, that is what counts
            raise full

    # --- helpers

    def _provenance(self) -> dict[str, Any]:
        return {
            "git_commit": git_commit(),
            "versions": package_versions(),
            "world_size": self._trainer.world_size,
            "mlflow_run_id": next((t.run_id for t in self._loggers(TrackingLogger)), None),
        }

    def _keep_text(self, name: str) -> None:
        """Hands a file of the run folder to MLflow, if it is there."""
        file = Path(self._trainer.default_root_dir) / name
        for tracker in self._loggers(TrackingLogger) if file.is_file() else ():
            tracker.log_text(file.read_text(encoding="utf-8"), name)

    def _loggers(self, kind: type) -> list[Any]:
        return [logger for logger in self._trainer.loggers if isinstance(logger, kind)]

    @property
    def _rows(self) -> int:
        return sum(file.rows for file in self._loggers(MetricsFile) if self._trainer.is_global_zero)

    def _ready_metrics_file(self) -> None:
        for file in self._loggers(MetricsFile):
            if self._rows_to_keep is not None:
                self._catch_up(file.keep_first(self._rows_to_keep))
        self._rows_to_keep = None

    @rank_zero_only
    def _catch_up(self, rows: list[tuple[int, str, float]]) -> None:
        """MLflow may lack the last seconds before a kill, or all, where the run began with another logger."""
        for tracker in self._loggers(TrackingLogger):
            tracker.catch_up(rows)
            if self.board.rows:
                tracker.log_scores(in_tags(self.board))


def _keep_end(folder: Path) -> None:
    """Gives what tells of the end of a run other names, before another one takes its place."""
    number = 1 + len([*folder.glob("summary.finished-*.json")])
    for name in ("scores.csv", "matrix.png", "paper.txt"):
        if (file := folder / name).is_file():
            shutil.copyfile(file, folder / f"{file.stem}.finished-{number}{file.suffix}")
    checkpoints = folder / "checkpoints"
    name_too(checkpoints / LAST, checkpoints / f"finished-{number}.ckpt")
    os.replace(folder / "summary.json", folder / f"summary.finished-{number}.json")


def status_of(exception: BaseException) -> Status:
    """How MLflow calls a run that ended like this."""
    return "KILLED" if isinstance(exception, (KeyboardInterrupt, SIGTERMException)) else "FAILED"
