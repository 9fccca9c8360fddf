"""One MLflow run through the MlflowClient; what MLflow raises is left to TrackingLogger."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lit_gen.tracking.mlflow_store import artifact_location

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

MAX_PARAM = 6000  # characters; MLflow's limit
_MAX_TAG = 5000
_MAX_PARAMS_AT_ONCE, _MAX_METRICS_AT_ONCE = 100, 1000
_CUT = " ... (cut; config.yaml among the artifacts is whole)"


class TrackedRun:
    """A run, its child runs of tasks, and the parameters that it already has.

    Attributes:
        resumed: the run was there before this process.
    """

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str, resumed: bool) -> None:
        self.client, self.run_id, self.experiment_id, self.resumed = client, run_id, experiment_id, resumed
        self._params: dict[str, str] = {}
        self._children: dict[int, str] = {}
        self._watch = None

    @classmethod
    def open(
        cls, uri: str, experiment: str, run_name: str, tags: Mapping[str, str], run_id: str | None
    ) -> Self:
        """Continues the run `run_id`, or begins one when it is None or no longer there."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri)
        if run_id is not None:
            run = cls._resume(client, run_id)
            if run is not None:
                run.set_tags(tags)
                return run
            log.warning("MLflow run %s is not there any more; beginning a new one", run_id)
        experiment_id = _experiment_id(client, uri, experiment)
        begun = client.create_run(experiment_id, run_name=run_name, tags=dict(tags))
        return cls(client, begun.info.run_id, experiment_id, resumed=False)

    @classmethod
    def _resume(cls, client: MlflowClient, run_id: str) -> Self | None:
        from mlflow.exceptions import MlflowException

        try:
            old = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if old.info.lifecycle_stage != "active":
            return None
        client.update_run(run_id, status="RUNNING")
        run = cls(client, run_id, old.info.experiment_id, resumed=True)
        run._params = dict(old.data.params)
        for child in client.search_runs(
            [old.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000
        ):
            if "task" in child.data.tags:
                run._children[int(child.data.tags["task"])] = child.info.run_id
                client.update_run(child.info.run_id, status="RUNNING")
        return run

    @property
    def place(self) -> str:
        """The run's page, below a server's address."""
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def log_metrics(self, rows: Iterable[tuple[str, float, int, int]]) -> None:
        """Rows of name, value, milliseconds since 1970, step."""
        self._log_metrics(self.run_id, rows)

    def log_params(self, params: Mapping[str, str]) -> None:
        """Adds parameters. MLflow changes none: what differs on resume becomes the tag `changed.<key>`."""
        from mlflow.entities import Param

        cut = {key: _cut(value, MAX_PARAM) for key, value in params.items()}
        new = [Param(key, value) for key, value in cut.items() if key not in self._params]
        for first in range(0, len(new), _MAX_PARAMS_AT_ONCE):
            self.client.log_batch(self.run_id, params=new[first : first + _MAX_PARAMS_AT_ONCE])
        self.set_tags({f"changed.{k}": v for k, v in cut.items() if self._params.get(k, v) != v})
        self._params |= {param.key: param.value for param in new}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        if tags:
            self.client.log_batch(self.run_id, tags=[RunTag(k, _cut(v, _MAX_TAG)) for k, v in tags.items()])

    def log_dataset(self, name: str, digest: str, context: str, profile: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source="{}", profile=profile)
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def log_task(self, task: int, name: str, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of one task, in a child run that is made when the first come."""
        if task not in self._children:
            tags = {"mlflow.parentRunId": self.run_id, "task": str(task), "task_name": name}
            child = self.client.create_run(self.experiment_id, run_name=f"task-{task}", tags=tags)
            self._children[task] = child.info.run_id
        stamp = int(time.time() * 1000)
        self._log_metrics(self._children[task], [(n, v, stamp, step) for n, v in metrics.items()])

    def watch_system(self, uri: str) -> None:
        """Starts MLflow's own thread that measures processor, memory, disk and network."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._watch = SystemMetricsMonitor(self.run_id, resume_logging=self.resumed, tracking_uri=uri)
        self._watch.start()

    def terminate(self, status: str) -> None:
        """Ends the run and its children with this status."""
        if self._watch is not None:
            self._watch.finish()
        for run_id in (*self._children.values(), self.run_id):
            self.client.set_terminated(run_id, status)

    def keep_checkpoint(self, checkpoint: Path, register_as: str | None, alias: str) -> None:
        """Uploads a checkpoint and, if asked, makes it a version of a registered model with an alias."""
        from mlflow.exceptions import MlflowException

        self.client.log_artifact(self.run_id, str(checkpoint), "checkpoints")
        if register_as is None:
            return
        try:
            self.client.create_registered_model(register_as)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        home = self.client.get_run(self.run_id).info.artifact_uri
        version = self.client.create_model_version(
            register_as, f"{home}/checkpoints/{checkpoint.name}", self.run_id
        )
        self.client.set_registered_model_alias(register_as, alias, version.version)

    def _log_metrics(self, run_id: str, rows: Iterable[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(allowed(name), *rest) for name, *rest in rows]
        for first in range(0, len(metrics), _MAX_METRICS_AT_ONCE):
            self.client.log_batch(run_id, metrics=metrics[first : first + _MAX_METRICS_AT_ONCE])


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location(uri, name))
        except MlflowException as error:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage != "active":
        log.warning("the MLflow experiment %s had been deleted; restoring it", name)
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def allowed(name: str) -> str:
    """A name without the characters that MLflow refuses."""
    return re.sub(r"[^\w.\-/ ]", "_", name)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
