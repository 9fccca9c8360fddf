"""Runs in MLflow, told from a thread of its own: a slow or dead server neither ends a run nor slows it."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import math
import os
import re
import shlex
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from lit_gen.core.files import write_json
from lit_gen.core.types import Task
from lit_gen.tracking.connection import (
    LOCK_SECONDS,
    carefully,
    connect,
    find_address,
    import_quietly,
    sqlite_file,
    without_secrets,
)
from lit_gen.tracking.courier import Courier

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
SERVER_PATIENCE, UPLOAD_PATIENCE = 5.0, 600.0  # seconds; for a database as long as for its lock
_BATCH_SECONDS = 2.0
_AT_ONCE = 100  # parameters, tags or metrics; what MLflow takes in one call
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters


def _told(method: Callable[..., None]) -> Callable[..., None]:
    """A method that works in the courier's thread, on rank 0 alone; returns at once. It may send others."""

    @rank_zero_only
    @functools.wraps(method)
    def send(self: TrackingLogger, *args: Any, **kwargs: Any) -> None:
        self.start()
        self.courier.send(functools.partial(carefully, functools.partial(method, self, *args, **kwargs)))

    return send


class TrackingLogger(Logger):
    """One MLflow run for a whole training run, continued when it is resumed.

    A metric has one value per step: what a resumed run logs again is not sent, and what a killed one could
    not send any more comes from the run folder (`catch_up`).

    The first failure, after one retry and 5 s at most, is logged as a warning, and the logger is silent from
    then on; the run folder has everything. Only rank 0 talks to MLflow.

    Args:
        folder: the run folder; `run.json` in it names the MLflow run to continue.
        tracking_uri: None is MLFLOW_TRACKING_URI, or else `sqlite:///mlflow.db` beside the folder `runs/`.
        run_name: None is the name of the run folder.
        system_metrics: also the use of processor, memory, disk and network; needs psutil.
        log_checkpoint: also the final checkpoint, as an artifact.
        register_as: a model of the registry that the final checkpoint becomes a version of.
        alias: points to that version.
        run_id: continues this MLflow run; None is the one in `run.json`, or a new one.

    Raises:
        ValueError: MLflow or psutil is not installed, or cannot keep runs at this address.
    """

    name, version = "mlflow", ""  # the same on every process, since Lightning builds paths from them

    def __init__(
        self,
        folder: str | Path = ".",
        tracking_uri: str | None = None,
        experiment_name: str = "lit-gen",
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        system_metrics: bool = False,
        log_checkpoint: bool = False,
        register_as: str | None = None,
        alias: str = "final",
        run_id: str | None = None,
    ) -> None:
        super().__init__()
        for package in ("mlflow", "psutil") if system_metrics else ("mlflow",):
            if importlib.util.find_spec(package) is None:
                way_out = "logger=csv" if package == "mlflow" else "system_metrics=false"
                raise ValueError(f"{package} is not installed; pip install {package}, or use {way_out}")
        self.folder = Path(folder)
        self.tracking_uri = find_address(tracking_uri, self.folder)
        self.experiment_name, self.run_name = experiment_name, run_name or self.folder.resolve().name
        self.tags, self.system_metrics, self.log_checkpoint = dict(tags or {}), system_metrics, log_checkpoint
        self.register_as, self.alias, self._given_run_id = register_as, alias, run_id
        self.courier = Courier(self._give_up)
        self._client: MlflowClient | None = None
        self._run: Run | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._is_started = self._is_finished = False
        self._rows: list[tuple[str, float, int, int]] = []  # name, value, ms since 1970, step
        self._next_flush, self._epoch_logged_at = 0.0, -1
        self._last_steps: dict[tuple[str, str], int] = {}  # by run and metric, before this start
        self._images: set[str] = set()  # that an earlier start of this run sent

    @property
    def experiment(self) -> MlflowClient | None:
        """None when MLflow is out of reach and on other ranks. Lightning asks for it before every fit."""
        self.start()
        return self._client

    @property
    def run_id(self) -> str | None:
        """None when MLflow is out of reach and on other ranks."""
        self.start()
        return self._run.info.run_id if self._run is not None else None

    @property
    def is_silent(self) -> bool:
        """Whether MLflow failed and was given up."""
        return self.courier.failed

    @rank_zero_only
    def start(self) -> None:
        """Opens the run, once; returns when it is there or MLflow was given up."""
        if not self._is_started:
            self._is_started = True
            import_quietly()  # in this thread: two that import the same large package can wait for each other
            self._open()
            self.courier.wait(self._patience)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now, step = time.time(), step or 0
        for name, value in metrics.items():
            # Lightning adds the epoch to all that it logs, several times at one step.
            if name != "epoch" or step > self._epoch_logged_at:
                self._rows.append((_allowed(name), float(value), int(now * 1000), step))
        if "epoch" in metrics:
            self._epoch_logged_at = step
        if now >= self._next_flush:
            self.finalize("")
            self._next_flush = now + _BATCH_SECONDS

    @rank_zero_only
    def catch_up(self, rows: Sequence[tuple[int, str, float]]) -> None:
        """Sends what is missing of all that was logged before this start: step, metric, value."""
        now = int(time.time() * 1000)
        self._rows += [(_allowed(name), value, now, step) for step, name, value in rows]
        self.finalize("")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Sends what waits. Lightning calls this after every fit and test; the run goes on until `finish`."""
        rows, self._rows = self._rows, []
        if rows:
            self._log("metrics", rows)

    @rank_zero_only
    def finish(self, status: Status, checkpoint: Path | None = None) -> None:
        """Ends the run, once, and waits until MLflow has everything.

        Args:
            checkpoint: the final one, kept if the configuration says so.
        """
        self.finalize(status)
        if not self._is_started or self._is_finished:
            return
        self._is_finished = True
        self._terminate(status)
        keeps = (self.log_checkpoint or self.register_as) and checkpoint and checkpoint.is_file()
        if self.courier.wait(self._patience) and status == "FINISHED" and keeps:
            self._upload(checkpoint)
            self.courier.wait(UPLOAD_PATIENCE)

    def view_command(self) -> str:
        """What a user runs or opens to look at the runs; no user and password in it."""
        address, run = without_secrets(self.tracking_uri), self._run
        if address.startswith(("http:", "https:")):
            page = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if run else ""
            return address.rstrip("/") + page
        beside = str(Path(sys.executable).with_name("mlflow"))
        program = "mlflow" if shutil.which("mlflow") == beside else beside
        return shlex.join([program, "ui", "--backend-store-uri", address])

    @property
    def _patience(self) -> float:
        return SERVER_PATIENCE if sqlite_file(self.tracking_uri) is None else LOCK_SECONDS

    def _give_up(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        without = f"The run goes on without it; everything is in {self.folder}."
        log.warning("%s", without_secrets(f"MLflow at {self.tracking_uri} failed ({what}). {without}"))

    # --- in the courier's thread

    @_told
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """MLflow changes no parameter: what differs on resume becomes the tag `changed.<key>`."""
        flat = flat_params(vars(params) if isinstance(params, Namespace) else params)
        known = self._client.get_run(self.run_id).data.params
        self._log("params", [(key, text) for key, text in flat.items() if key not in known])
        changed = [key for key, text in flat.items() if known.get(key, text) != text]
        self.set_tags({f"changed.{key}": flat[key] for key in changed})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        texts = {key: without_secrets(str(value)) for key, value in tags.items()}
        self._log("tags", [(key, _cut(text, _LONGEST_TAG)) for key, text in texts.items()])

    @_told
    def log_text(self, text: str, artifact_file: str) -> None:
        """Keeps a text as an artifact, addresses in it without their user and password."""
        self._client.log_text(self.run_id, without_secrets(text), artifact_file)

    @_told
    def log_file(self, path: Path, artifact_folder: str | None = None) -> None:
        """Keeps a file, as it is when its turn comes, as an artifact."""
        self._client.log_artifact(self.run_id, str(path), artifact_folder)

    @_told
    def log_image(self, key: str, image: Tensor, step: int) -> None:
        """uint8 [H, W, C]."""
        if f"{key}+step+{step}" in self._images:
            return
        pixels = image.squeeze(-1).cpu().numpy()  # one channel is [H, W] to MLflow
        self._client.log_image(self.run_id, pixels, key=key, step=step)

    @_told
    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Images that the run uses; a digest has at most 36 characters, a context is "training" or "test"."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source="{}", profile=json.dumps(dict(profile)))
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, [tag])])

    @_told
    def log_rows(self, rows: Sequence[Any], tasks: Sequence[Task], step: int) -> None:
        """Gives finite test scores to a child run of their task; see `TakesRows`."""
        children, now = self._children(), int(time.time() * 1000)
        known = [row for row in rows if row.split == "test" and math.isfinite(row.value)]
        for task in tasks:
            mine = [
                (_allowed(f"{row.metric}/{row.extractor}".rstrip("/")), row.value, now, step)
                for row in known
                if row.on_task == task.index
            ]
            if mine and task.index not in children:
                tags = {"mlflow.parentRunId": self.run_id, "task": str(task.index), "task_name": task.name}
                place, name = self._run.info.experiment_id, f"task-{task.index}"
                children[task.index] = self._client.create_run(place, run_name=name, tags=tags).info.run_id
            if mine:
                self._log("metrics", mine, children[task.index])

    @_told
    def _open(self) -> None:
        client, address = connect(self.tracking_uri), without_secrets(self.tracking_uri)
        run = self._old_run(client, address) or self._new_run(client)
        note = {"mlflow_run_id": run.info.run_id, "experiment": self.experiment_name, "tracking_uri": address}
        write_json(self.folder / "run.json", note)
        self._client, self._run = client, run
        self.set_tags(self.tags)
        for run_id in (run.info.run_id, *self._children().values()):
            client.update_run(run_id, status="RUNNING")
            for name in client.get_run(run_id).data.metrics:
                self._remember(run_id, name)
        files = client.list_artifacts(run.info.run_id, "images") if run.data.metrics else ()
        self._images = {Path(file.path).name.partition("+timestamp+")[0].replace("~", "/") for file in files}
        if self.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            place = {"run_id": run.info.run_id, "tracking_uri": self.tracking_uri}
            self._monitor = SystemMetricsMonitor(**place, resume_logging=True)
            self._monitor.start()

    def _old_run(self, client: MlflowClient, address: str) -> Run | None:
        """The run that was given, or that an earlier start of this run folder opened at the same address."""
        from mlflow.exceptions import MlflowException

        run_id = self._given_run_id
        if run_id is None:
            with suppress(OSError, ValueError):
                note = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
                run_id = note.get("mlflow_run_id") if note.get("tracking_uri") == address else None
        if run_id is None:
            return None
        try:
            if (run := client.get_run(run_id)).info.lifecycle_stage == "active":
                return run
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        log.warning("MLflow run %s is not there any more; beginning a new one", run_id)
        return None

    def _new_run(self, client: MlflowClient) -> Run:
        name, database = self.experiment_name, sqlite_file(self.tracking_uri)
        files = database and database.resolve().parent / "mlartifacts" / re.sub(r"[^\w.\-]", "_", name)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # Another process may be faster; the second try then finds its experiment.
            number = client.create_experiment(name, files and files.as_uri())
        else:
            number = experiment.experiment_id
            if experiment.lifecycle_stage != "active":
                log.warning("the MLflow experiment %s had been deleted; restoring it", name)
                client.restore_experiment(number)
        return client.create_run(number, run_name=self.run_name)

    def _children(self) -> dict[int, str]:
        """Ids of the runs of tasks, by the task's index."""
        only = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        runs = self._client.search_runs([self._run.info.experiment_id], only, max_results=1000)
        return {int(run.data.tags["task"]): run.info.run_id for run in runs if "task" in run.data.tags}

    @_told
    def _remember(self, run_id: str, name: str) -> None:
        """The last step of a metric, which MLflow tells with the whole curve only."""
        if not name.startswith("system/"):  # those have another writer
            steps = [point.step for point in self._client.get_metric_history(run_id, name)]
            self._last_steps[run_id, name] = max(steps, default=-1)

    @_told
    def _log(self, kind: str, values: Sequence[tuple[Any, ...]], run_id: str | None = None) -> None:
        """Metrics (name, value, ms since 1970, step), params or tags (key, text), as many as there are."""
        from mlflow import entities

        make = {"metrics": entities.Metric, "params": entities.Param, "tags": entities.RunTag}[kind]
        run_id = run_id or self.run_id
        if kind == "metrics":
            values = [v for v in values if v[3] > self._last_steps.get((run_id, v[0]), -1)]
        for first in range(0, len(values), _AT_ONCE):
            some = [make(*value) for value in values[first : first + _AT_ONCE]]
            self._client.log_batch(run_id, **{kind: some})

    @_told
    def _terminate(self, status: Status) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        for run_id in (*self._children().values(), self.run_id):
            self._client.set_terminated(run_id, status)

    @_told
    def _upload(self, checkpoint: Path) -> None:
        """Keeps a checkpoint and, if asked, makes it a version of a registered model with an alias."""
        from mlflow.exceptions import MlflowException

        # A server may take its time with a large file; nothing trains any more that could be slowed.
        brief = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(UPLOAD_PATIENCE))
        try:
            self._client.log_artifact(self.run_id, str(checkpoint), "checkpoints")
            if self.register_as is not None:
                with suppress(MlflowException):  # it is there already; what else it may be is said next
                    self._client.create_registered_model(self.register_as)
                source = f"{self._run.info.artifact_uri}/checkpoints/{checkpoint.name}"
                version = self._client.create_model_version(self.register_as, source, self.run_id)
                self._client.set_registered_model_alias(self.register_as, self.alias, version.version)
        finally:
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = brief


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots; values as text, without secrets. Empty dictionaries and lists stay."""
    params = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            params |= flat_params(value, f"{prefix}{key}.")
        else:
            text = without_secrets(value if isinstance(value, str) else json.dumps(value, default=str))
            params[_allowed(f"{prefix}{key}")] = _cut(text, _LONGEST_PARAM)
    return params


def _allowed(name: str) -> str:
    """A name without the characters that MLflow refuses."""
    return re.sub(r"[^\w.\-/ ]", "_", name)


def _cut(text: str, limit: int) -> str:
    mark = " ... (cut; config.yaml among the artifacts is whole)"
    return text if len(text) <= limit else text[: limit - len(mark)] + mark
