"""Runs in MLflow, told from a thread of its own: a slow or dead server neither ends a run nor slows it."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from lit_gen.tracking import mlflow_store as store
from lit_gen.tracking.background import Courier
from lit_gen.tracking.mlflow_run import TrackedRun, allowed

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
SERVER_PATIENCE = 5.0
LOCAL_PATIENCE = (
    300.0  # a fresh database takes seconds, and other processes may be before us in the queue for its lock
)
UPLOAD_PATIENCE = 600.0
_BATCH, _BATCH_SECONDS = 500, 2.0


class TrackingLogger(Logger):
    """One MLflow run for a whole training run, continued when it is resumed.

    Nothing here raises for a server's sake: the first failure, after one retry and 5 s at most, is logged as
    a warning, and the logger is silent from then on. Everything it would have kept is in the run folder.

    Only rank 0 talks to MLflow; on other processes every method does nothing.

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
        InputError: MLflow or psutil is not installed, or cannot keep runs at this address.
    """

    def __init__(
        self,
        folder: str | Path,
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
        self.folder = Path(folder)
        store.check_installed(system_metrics)
        self.tracking_uri = store.move_credentials(store.resolve_uri(tracking_uri, self.folder))
        self.experiment_name, self.run_name = experiment_name, run_name or self.folder.name
        self.tags = {str(key): str(value) for key, value in (tags or {}).items()}
        self.system_metrics, self.log_checkpoint = system_metrics, log_checkpoint
        self.register_as, self.alias = register_as, alias
        self._given_run_id = run_id
        self._courier = Courier("mlflow", self._give_up)
        self._run: TrackedRun | None = None
        self._started = False
        self._finished: Status | None = None
        self._pending: list[tuple[str, float, int, int]] = []  # name, value, ms since 1970, step
        self._pending_since = 0.0
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self.experiment_name

    @property
    def version(self) -> str:
        # Not the run's id: only rank 0 knows it, and Lightning builds paths from this on every process.
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The MlflowClient, or None when MLflow is out of reach. Lightning asks for it before every fit."""
        self.start()
        return self._run.client if self._run is not None else None

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id; None on other processes than rank 0 and when MLflow is out of reach."""
        self.start()
        return self._run.run_id if self._run is not None else None

    @property
    def is_silent(self) -> bool:
        """Whether MLflow failed and was given up."""
        return self._courier.failed

    @rank_zero_only
    def start(self) -> None:
        """Opens the run, once; returns when it is there or MLflow was given up."""
        if self._started:
            return
        self._started = True
        # In this thread: two threads that import the same large package can wait for each other.
        store.import_quietly()
        self._courier.send(lambda: store.carefully(self._open))
        self._courier.wait(LOCAL_PATIENCE if store.is_local(self.tracking_uri) else SERVER_PATIENCE)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        now = time.time()
        with self._lock:
            if not self._pending:
                self._pending_since = now
            stamp = int(now * 1000)
            self._pending += [(n, float(v), stamp, step or 0) for n, v in metrics.items()]
            is_due = len(self._pending) >= _BATCH or now - self._pending_since > _BATCH_SECONDS
        if is_due:
            self.flush()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._send(
            lambda run: run.log_params(flat(vars(params) if isinstance(params, Namespace) else params))
        )

    @rank_zero_only
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        text = {key: store.without_secrets(str(value)) for key, value in tags.items()}
        self._send(lambda run: run.set_tags(text))

    @rank_zero_only
    def log_text(self, text: str, artifact_file: str) -> None:
        """Keeps a text as an artifact, addresses in it without their user and password."""
        self._send(lambda run: run.client.log_text(run.run_id, store.without_secrets(text), artifact_file))

    @rank_zero_only
    def log_file(self, path: Path, artifact_folder: str | None = None) -> None:
        """Keeps a file, as it is when its turn comes, as an artifact."""
        self._send(lambda run: run.client.log_artifact(run.run_id, str(path), artifact_folder))

    @rank_zero_only
    def log_image(self, key: str, image: Tensor, step: int) -> None:
        """uint8 [H, W, C]."""
        pixels = image.squeeze(-1).cpu().numpy()  # one channel is [H, W] to MLflow
        self._send(lambda run: run.client.log_image(run.run_id, pixels, key=key, step=step))

    @rank_zero_only
    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Names the images that the run uses.

        Args:
            digest: at most 36 characters.
            context: "training", "test".
            profile: what else is known of them, such as their number.
        """
        self._send(lambda run: run.log_dataset(name, digest, context, json.dumps(dict(profile))))

    @rank_zero_only
    def log_task(self, task: int, name: str, metrics: Mapping[str, float], step: int) -> None:
        """Scores of one task, in a child run of its own."""
        self._send(lambda run: run.log_task(task, name, dict(metrics), step))

    @rank_zero_only
    def flush(self) -> None:
        """Sends what waits; returns at once."""
        with self._lock:
            rows, self._pending = self._pending, []
        if rows:
            self._send(lambda run: run.log_metrics(rows))

    def finalize(self, status: str) -> None:
        # Lightning calls this after every fit and test; the run goes on until `finish`.
        self.flush()

    @rank_zero_only
    def finish(self, status: Status, checkpoint: Path | None = None) -> None:
        """Ends the run, once, and waits until MLflow has everything.

        Args:
            checkpoint: the final one, kept if the configuration says so.
        """
        if self._finished:
            return
        self.flush()
        if not self._started:
            return
        self._finished = status
        self._send(lambda run: run.terminate(status))
        patience = LOCAL_PATIENCE if store.is_local(self.tracking_uri) else SERVER_PATIENCE
        keeps = (self.log_checkpoint or self.register_as) and checkpoint is not None and checkpoint.is_file()
        if self._courier.wait(patience) and status == "FINISHED" and keeps:
            self._send(partial(self._upload, checkpoint))
            self._courier.wait(UPLOAD_PATIENCE)

    def view_command(self) -> str:
        """What a user runs or opens to look at the runs; no user and password in it."""
        address = store.without_secrets(self.tracking_uri)
        if address.startswith(("http:", "https:")):
            return address if self._run is None else f"{address.rstrip('/')}/{self._run.place}"
        found = shutil.which("mlflow")
        beside = Path(sys.executable).with_name("mlflow")
        here = Path(found).parent == beside.parent if found else False
        program = "mlflow" if here else min(os.path.relpath(beside), str(beside), key=len)
        return f"{shlex.quote(program)} ui --backend-store-uri {shlex.quote(address)}"

    # --- in the courier's thread

    def _open(self) -> None:
        store.prepare_database(self.tracking_uri)
        noted = self.folder / "run.json"
        address = store.without_secrets(self.tracking_uri)
        run_id = self._given_run_id or _noted_run(noted, address)
        run = TrackedRun.open(self.tracking_uri, self.experiment_name, self.run_name, self.tags, run_id)
        if self.system_metrics:
            run.watch_system(self.tracking_uri)
        note = {"mlflow_run_id": run.run_id, "experiment": self.experiment_name, "tracking_uri": address}
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = noted.with_suffix(".json.tmp")
        fresh.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, noted)
        self._run = run

    def _send(self, job: Callable[[TrackedRun], None]) -> None:
        if not self._courier.failed:
            self.start()
            self._courier.send(lambda: store.carefully(lambda: job(self._run)))

    def _upload(self, checkpoint: Path, run: TrackedRun) -> None:
        # A server may take its time with a large file; nothing trains any more that could be slowed.
        brief = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(UPLOAD_PATIENCE))
        try:
            run.keep_checkpoint(checkpoint, self.register_as, self.alias)
        finally:
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = brief

    def _give_up(self, error: Exception) -> None:
        reason = store.without_secrets(" ".join(str(error).split())[:300])
        log.warning(
            "MLflow at %s failed (%s: %s). The run goes on without it; everything is in %s.",
            store.without_secrets(self.tracking_uri),
            type(error).__name__,
            reason,
            self.folder,
        )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots; values as text, without secrets. Empty dictionaries and lists stay."""
    params: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            params |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            params[allowed(f"{prefix}{key}")] = store.without_secrets(text)
    return params


def _noted_run(path: Path, address: str) -> str | None:
    """The run that an earlier start of this run folder opened at the same address."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note.get("mlflow_run_id") if note.get("tracking_uri") == address else None
