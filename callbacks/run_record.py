"""What a run leaves behind: its configuration in every checkpoint, its MLflow run, a summary at the end."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.continual_scores import ContinualScores
from lit_gen.core.checkpoint import CHECKPOINT_KEY, FORMAT, LAST
from lit_gen.evaluation.scores import ReportsScores, kind_of
from lit_gen.tracking.data_record import describe_data
from lit_gen.tracking.metrics_file import MetricsFile
from lit_gen.tracking.mlflow_store import without_secrets
from lit_gen.tracking.mlflow_tracking import Status, TrackingLogger
from lit_gen.tracking.phase_times import PhaseTimes
from lit_gen.tracking.pictures import batches_seen, num_images
from lit_gen.tracking.versions import device_name, git_commit, package_versions

log = logging.getLogger(__name__)


class RunRecord(Callback):
    """Keeps what is needed to rebuild, resume and compare the run.

    List it after ContinualScores, whose rows it records.

    Args:
        folder: the run folder.
        config: plain and resolved; becomes MLflow's parameters.
        config_source: plain, before interpolation; becomes part of every checkpoint, without user and
            password in addresses.
        tags: of the user, beside those for commit, versions and device.
        cpu_threads: the count that the run uses; None is PyTorch's current one.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        config_source: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        cpu_threads: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.config, self.config_source = dict(config), cleaned(config_source)
        self.tags = dict(tags or {})
        self.cpu_threads = cpu_threads or torch.get_num_threads()
        self._trainer: Trainer | None = None
        self._times = PhaseTimes()
        self._started = time.monotonic()
        self._seconds_before = 0.0  # of the same run before it was resumed
        self._is_begun = False
        # A run that begins anew in its folder, killed before its first checkpoint, drops all it logged there.
        self._cut_metrics: tuple[int, int] | None = (-1, 0)
        self._finished: Status | None = None

    # --- in the checkpoint

    def state_dict(self) -> dict[str, Any]:
        files = [logger for logger in self._trainer.loggers if isinstance(logger, MetricsFile)]
        is_writer = bool(files) and self._trainer.is_global_zero
        return {
            "wall_seconds": self.wall_seconds,
            "phases": self._times.state(),
            "last_step": batches_seen(self._trainer) - 1,
            "metric_rows": files[0].rows if is_writer else 0,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds_before, self._started = state_dict["wall_seconds"], time.monotonic()
        self._times.load(state_dict["phases"])
        self._cut_metrics = (state_dict["last_step"], state_dict["metric_rows"])

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # What is in the checkpoint must not be lost from the file when the run is killed right after.
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.flush()
        checkpoint[CHECKPOINT_KEY] = {
            "format": FORMAT,
            "version": package_versions().get("lit-gen", "?"),
            "config": self.config_source,
            "cpu_threads": self.cpu_threads,
            "mlflow_run_id": next((t.run_id for t in self._trackers()), None),
            "git_commit": git_commit(),
            "versions": dict(package_versions()),
            "world_size": trainer.world_size,
        }

    # --- along the run

    @property
    def wall_seconds(self) -> float:
        """Seconds of work on this run, resumed parts included."""
        return self._seconds_before + time.monotonic() - self._started

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        if not self._is_begun:
            self._is_begun = True
            self._begin(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._cut_metrics_file()  # not in `setup`: a checkpoint's state is loaded after it

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._cut_metrics_file()
        self._note_epoch(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        phase = getattr(pl_module, "phase", None)
        name = "train" if phase is None else phase.name
        self._times.enter(getattr(trainer.datamodule, "current_task", 0), name)
        self._note_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note_epoch(trainer)
        self._times.go()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._times.count(num_images(batch))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._times.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._times.go()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._times.stop(trainer.world_size)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for tracker in self._trackers() if trainer.is_global_zero else ():
            after = trainer.datamodule.current_task
            for task in trainer.datamodule.tasks:
                metrics = {
                    kind_of(score.metric, score.extractor): score.value
                    for callback in trainer.callbacks
                    if isinstance(callback, ReportsScores)
                    for score in callback.scores
                    if score.on_task == task.index and score.split == "test" and math.isfinite(score.value)
                }
                if metrics:
                    tracker.log_task(task.index, task.name, metrics, after)
            if (self.folder / "scores.csv").is_file():
                tracker.log_text((self.folder / "scores.csv").read_text(encoding="utf-8"), "scores.csv")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._times.stop()
        self.finish(status_of(exception))

    @rank_zero_only
    def finish(self, status: Status) -> None:
        """Writes summary.json and ends the run in MLflow, once: the first status counts."""
        if self._finished is not None:
            return
        self._finished = status
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / "summary.json.tmp"
        fresh.write_text(json.dumps(self.summary(), indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, self.folder / "summary.json")
        for logger in self._trainer.loggers if self._trainer is not None else ():
            if isinstance(logger, MetricsFile):
                logger.flush()
        for tracker in self._trackers():
            tracker.log_file(self.folder / "summary.json")
            tracker.finish(status, self.folder / "checkpoints" / LAST)

    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        trainer = self._trainer
        tables = [c for c in trainer.callbacks if isinstance(c, ContinualScores)] if trainer else []
        scores = {kind: _finite(s._asdict()) for table in tables for kind, s in table.summary().items()}
        return {
            "status": self._finished,
            "scores": scores,
            "wall_seconds": round(self.wall_seconds, 3),
            "phases": self._times.report(),
            "batches": batches_seen(trainer) if trainer else 0,
            "seed": self.config.get("seed"),
            "cpu_threads": self.cpu_threads,
            "device": device_name(trainer.strategy.root_device) if trainer else None,
            "world_size": trainer.world_size if trainer else 1,
            "git_commit": git_commit(),
            "versions": package_versions(),
            "mlflow_run_id": next((t.run_id for t in self._trackers()), None),
        }

    # --- helpers

    @rank_zero_only
    def _begin(self, trainer: Trainer) -> None:
        trackers = self._trackers()
        if not trackers:
            return
        versions = {f"version.{name}": number for name, number in package_versions().items()}
        commit = git_commit()
        tags = {
            **versions,
            "device": device_name(trainer.strategy.root_device),
            "world_size": trainer.world_size,
            **({"git_commit": commit, "mlflow.source.git.commit": commit.split("-")[0]} if commit else {}),
            **self.tags,
        }
        data = describe_data(trainer.datamodule) if trainer.datamodule is not None else ()
        for tracker in trackers:
            tracker.log_hyperparams(self.config)
            tracker.set_tags(tags)
            for part in data:
                tracker.log_dataset(*part)
            if (self.folder / "config.yaml").is_file():
                tracker.log_text((self.folder / "config.yaml").read_text(encoding="utf-8"), "config.yaml")

    def _trackers(self) -> list[TrackingLogger]:
        loggers = self._trainer.loggers if self._trainer is not None else ()
        return [logger for logger in loggers if isinstance(logger, TrackingLogger)]

    def _note_epoch(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.epoch = trainer.current_epoch

    def _cut_metrics_file(self) -> None:
        if self._cut_metrics is not None:
            for logger in self._trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.truncate_after(*self._cut_metrics)
            self._cut_metrics = None


def status_of(exception: BaseException | None) -> Status:
    """How MLflow calls a run that ended like this."""
    if exception is None:
        return "FINISHED"
    return "KILLED" if isinstance(exception, (KeyboardInterrupt, SIGTERMException)) else "FAILED"


def cleaned(config: Any) -> Any:
    """The configuration with user and password taken out of every address in it."""
    if isinstance(config, Mapping):
        return {key: cleaned(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [cleaned(value) for value in config]
    return without_secrets(config) if isinstance(config, str) else config


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
