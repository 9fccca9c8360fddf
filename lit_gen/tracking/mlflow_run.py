"""One run in MLflow, told by calls that wait for the answer and bear to be repeated."""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lit_gen.core.files import write_json
from lit_gen.tracking.connection import absolute_address, connect, sqlite_file
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.names import shown_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
_AT_ONCE = 100  # parameters, tags or metrics; what MLflow takes in one call
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters
_SOURCE = "mlflow.source.name"


class MlflowRun:
    """A run of MLflow, which the first call makes or finds. It has one value of a metric per step.

    A call that raised may have reached MLflow all the same. Made again it changes nothing then.

    Args:
        address, folder, experiment, name, run_id, system_metrics: see `TrackingLogger`.

    Attributes:
        began: ms since 1970, of a run that is told about later; None: now.
        is_open: whether it was made or found.
        extractor: the run's own, as in its parameters; None: it names none.
        source: the command that began the run.
    """

    def __init__(
        self, address: str, folder: Path, experiment: str, name: str, run_id: str | None, system_metrics: bool
    ) -> None:
        self.address, self.folder, self.experiment, self.name = address, folder, experiment, name
        self.began: int | None = None
        self.is_open = False
        self.client: MlflowClient | None = None
        self.run: Run | None = None
        self.extractor: str | None = None
        self.source = ""
        self._given_run_id, self._system_metrics = run_id, system_metrics
        self._monitor: SystemMetricsMonitor | None = None
        self._key: str | None = None  # tag of the run that was asked for, whether or not an answer came
        self._known: dict[str, set[int]] = {}  # steps by metric, of earlier starts
        self._has_old_names = False  # as loggers are told; an older version began the run
        self._images: set[str] | None = set()  # of earlier starts; None: an answer did not come

    @property
    def id(self) -> str:
        return self.run.info.run_id

    def open(self) -> None:
        client, address = connect(self.address), without_secrets(self.address)
        ids = self._ids()
        run = self._old_run(client, self._given_run_id or ids.get(address)) or self._new_run(client)
        note = {"mlflow_run_id": run.info.run_id, "experiment": self.experiment, "tracking_uri": address}
        write_json(self.folder / "run.json", note | {"runs": ids | {address: run.info.run_id}})
        self.client, self.run = client, run
        client.update_run(self.id, status="RUNNING")
        self.extractor = run.data.params.get("extractor.name")
        self.source = run.data.tags.get(_SOURCE, "")
        self._has_old_names = any(shown_name(n, self.extractor) != n for n in run.data.metrics)
        self.look()
        if self._system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            place = {"run_id": self.id, "tracking_uri": self.address}
            self._monitor = SystemMetricsMonitor(**place, resume_logging=True)
            self._monitor.start()
        self.is_open = True

    def look(self) -> None:
        """Finds out which metrics and images MLflow has; they are not sent again."""
        known = {}
        for name in self.client.get_run(self.id).data.metrics:
            if not name.startswith("system/"):  # those have another writer
                # MLflow tells the steps with the whole curve only.
                known[name] = {point.step for point in self.client.get_metric_history(self.id, name)}
        self._known, self._images = known, self._kept_images() if known else set()

    def send(self, kind: str, values: Sequence[tuple[Any, ...]]) -> None:
        """Metrics (name, value, ms since 1970, step), params or tags (key, text), as many as there are.

        Metrics go by the names that MLflow shows, unless the run has others from an older version.
        """
        from mlflow import entities

        make = {"metrics": entities.Metric, "params": entities.Param, "tags": entities.RunTag}[kind]
        if kind == "metrics":
            named = (
                (v[0] if self._has_old_names else shown_name(v[0], self.extractor), *v[1:]) for v in values
            )
            values = [v for v in named if v[0] and v[3] not in self._known.get(v[0], ())]
        for first in range(0, len(values), _AT_ONCE):
            some = [make(*value) for value in values[first : first + _AT_ONCE]]
            self.client.log_batch(self.id, **{kind: some})

    def log_params(self, flat: Mapping[str, str]) -> None:
        """MLflow changes no parameter: what differs on resume becomes the tag `changed.<key>`."""
        known = self.client.get_run(self.id).data.params
        self.extractor = known.get("extractor.name", flat.get("extractor.name"))
        self.send("params", [(key, text) for key, text in flat.items() if key not in known])
        changed = [key for key, text in flat.items() if known.get(key, text) != text]
        self.set_tags({f"changed.{key}": flat[key] for key in changed})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """A run that goes on keeps the command that began it."""
        texts = {key: without_secrets(str(value), key) for key, value in tags.items()}
        self.source = self.source or texts.get(_SOURCE, "")
        texts |= {_SOURCE: self.source} if _SOURCE in texts else {}
        self.send("tags", [(key, _cut(text, _LONGEST_TAG)) for key, text in texts.items()])

    def log_image(self, key: str, image: np.ndarray, step: int) -> None:
        """uint8 [H, W] or [H, W, C]."""
        known = self._kept_images() if self._images is None else self._images
        if f"{key}+step+{step}" not in known:
            self._images = None
            self.client.log_image(self.id, image, key=key, step=step)
        self._images = known

    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source="{}", profile=json.dumps(dict(profile)))
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(self.id, [DatasetInput(dataset, [tag])])

    def log_note(self, scores: str, picture: np.ndarray | None) -> None:
        """The run's description: the command, scores in Markdown, a picture, the run folder."""
        parts = [f"`{self.source}`"] if self.source else []
        parts += [scores] if scores else []
        if picture is not None:
            self.client.log_image(self.id, picture, artifact_file="samples.png")
            parts.append(f"![samples](get-artifact?path=samples.png&run_uuid={self.id})")
        parts.append(f"Run folder: `{self.folder.resolve()}`")
        self.set_tags({"mlflow.note.content": "\n\n".join(parts)})

    def terminate(self, status: Status, ended: int) -> None:
        """Args: ended: ms since 1970."""
        if self._monitor is not None:
            self._monitor.finish()
        self.client.set_terminated(self.id, status, ended)

    def upload(self, checkpoint: Path, register_as: str | None, alias: str, patience: float) -> None:
        """Keeps a checkpoint and, if asked, makes it a version of a registered model with an alias."""
        from mlflow.exceptions import MlflowException

        # A server may take its time with a large file; nothing trains any more that could be slowed.
        brief = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(patience))
        try:
            self.client.log_artifact(self.id, str(checkpoint), "checkpoints")
            if register_as is not None:
                with suppress(MlflowException):  # it is there already; what else it may be is said next
                    self.client.create_registered_model(register_as)
                source = f"{self.run.info.artifact_uri}/checkpoints/{checkpoint.name}"
                of_this_run = f"name = '{register_as}' and run_id = '{self.id}'"
                versions = self.client.search_model_versions(of_this_run) or [
                    self.client.create_model_version(register_as, source, self.id)
                ]
                self.client.set_registered_model_alias(register_as, alias, versions[0].version)
        finally:
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = brief

    def _ids(self) -> dict[str, str]:
        """The runs that earlier starts of this run folder opened, by their address; {} for a damaged note."""
        file = self.folder / "run.json"
        try:
            note = json.loads(file.read_text(encoding="utf-8"))
            known = {note["tracking_uri"]: note["mlflow_run_id"]} | note.get("runs", {})
            return {absolute_address(address): run_id for address, run_id in known.items()} | known
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            log.warning("%s is damaged; logger.run_id=ID goes on with the MLflow run that it named", file)
        return {}

    def _old_run(self, client: MlflowClient, run_id: str | None) -> Run | None:
        """The run of this id, if there is one."""
        from mlflow.exceptions import MlflowException

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
        from mlflow.exceptions import MlflowException

        database = sqlite_file(self.address)
        place = re.sub(r"[^\w.\-]", "_", self.experiment)
        if len(place.encode()) > 200:  # file systems take 255
            place = f"{place[:40]}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        files = database and database.resolve().parent / "mlartifacts" / place
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            try:
                client.create_experiment(self.experiment, files and files.as_uri())
            except MlflowException:
                if client.get_experiment_by_name(self.experiment) is None:
                    raise  # else another process was faster
            experiment = client.get_experiment_by_name(self.experiment)
        number = experiment.experiment_id
        if experiment.lifecycle_stage != "active":
            log.warning("the MLflow experiment %s had been deleted; restoring it", self.experiment)
            client.restore_experiment(number)
        if self._key is None:
            self._key = secrets.token_hex(8)
        elif asked := client.search_runs([number], f"tags.`lit_gen.key` = '{self._key}'", max_results=1):
            return asked[0]
        tags = {"lit_gen.key": self._key}
        with suppress(ImportError, KeyError, OSError):  # a user without a name, as in some containers
            tags["mlflow.user"] = getpass.getuser()
        return client.create_run(number, run_name=self.name, tags=tags, start_time=self.began)

    def _kept_images(self) -> set[str]:
        files = self.client.list_artifacts(self.id, "images")
        return {Path(file.path).name.partition("+timestamp+")[0].replace("~", "/") for file in files}


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots; values as text, without secrets. Empty dictionaries and lists stay."""
    params = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            params |= flat_params(value, f"{prefix}{key}.")
        else:
            shown = without_secrets(value, str(key))
            text = shown if isinstance(shown, str) else json.dumps(shown, default=str)
            params[allowed(f"{prefix}{key}")] = _cut(text, _LONGEST_PARAM)
    return params


def allowed(name: str) -> str:
    """A name without the characters that MLflow refuses."""
    return re.sub(r"[^\w.\-/ ]", "_", name)


def _cut(text: str, limit: int) -> str:
    mark = " ... (cut; config.yaml among the artifacts is whole)"
    return text if len(text) <= limit else text[: limit - len(mark)] + mark
