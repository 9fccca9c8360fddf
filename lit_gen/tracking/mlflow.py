"""Runs in MLflow, told from a thread of its own: a slow or dead server neither ends a run nor slows it."""

from __future__ import annotations

import functools
import importlib.util
import logging
import shlex
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from lit_gen.core.pictures import read_picture
from lit_gen.tracking.connection import find_address, import_quietly, may_pass, sqlite_file
from lit_gen.tracking.courier import Courier
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.mlflow_run import MlflowRun, Status, allowed, flat_params

if TYPE_CHECKING:  # imported where it is used: logger=csv needs no MLflow, and it takes seconds
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

START_PATIENCE, STOP_PATIENCE, END_PATIENCE, UPLOAD_PATIENCE = 5.0, 5.0, 30.0, 600.0
"""Seconds without any progress: at the start, of a run that was stopped, of any other, of a checkpoint. A
SQLite database, which others may keep locked, has twice as long."""
_BATCH_SECONDS = 2.0


class TrackingLogger(Logger):
    """One MLflow run for a whole training run, continued when it is resumed.

    A metric has one value per step: what a resumed run logs again is not sent, and what a killed one could
    not send any more comes from the run folder (`catch_up`).

    While MLflow is out of reach everything waits, and is sent when it answers again; one warning says so. The
    training does not wait, but 5 s at its start; its end waits for 30 s. What MLflow lacks then,
    `lit-gen track` brings from the run folder. Only rank 0 talks to MLflow.

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
        tags: Mapping[str, str | float | bool] | None = None,
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
        self.tags, self.log_checkpoint = dict(tags or {}), log_checkpoint
        self.register_as, self.alias = register_as, alias
        name = run_name or self.folder.resolve().name
        place = (self.tracking_uri, self.folder, experiment_name, name, run_id)
        self._run = MlflowRun(*place, system_metrics)
        self._is_database = sqlite_file(self.tracking_uri) is not None
        self.courier = Courier(may_pass, self._say_trouble, self._say_refusal, 10 if self._is_database else 1)
        self._is_started = self._is_finished = self._is_refused = False
        self._rows: list[tuple[str, float, int, int]] = []  # name, value, ms since 1970, step
        self._next_flush = 0.0

    @property
    def experiment(self) -> MlflowClient | None:
        """None when MLflow is out of reach and on other ranks. Lightning asks for it before every fit."""
        self.start()
        return self._run.client

    @property
    def run_id(self) -> str | None:
        """None when MLflow is out of reach and on other ranks."""
        self.start()
        return self._run.id if self._run.run is not None else None

    @property
    def is_behind(self) -> bool:
        """Whether MLflow lacks something that it was told, so far or for good."""
        return self.courier.lacks or not self.courier.is_idle

    @rank_zero_only
    def start(self, began: int | None = None) -> None:
        """Opens the run, once; returns when it is there or MLflow does not answer.

        Args:
            began: ms since 1970, of a run that is told about later; None: now.
        """
        if self._is_started:
            return
        self._is_started, self._run.began = True, began
        import_quietly()  # in this thread: two that import the same large package can wait for each other
        self.set_tags(self.tags)
        if not self.courier.wait(self._patience(START_PATIENCE), through_trouble=False):
            self.courier.say_trouble(TimeoutError("no answer yet"))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now, step = time.time(), step or 0
        for name, value in metrics.items():
            if name != "epoch":  # which Lightning adds to all that it logs, several times at one step
                self._rows.append((allowed(name), float(value), int(now * 1000), step))
        if now >= self._next_flush:
            self.finalize("")
            self._next_flush = now + _BATCH_SECONDS

    @rank_zero_only
    def catch_up(self, rows: Sequence[tuple[int, str, float]], times: Sequence[int] | None = None) -> None:
        """Sends what is missing of all that was logged before this start: step, metric, value.

        Args:
            times: of each, in ms since 1970; None: now.
        """
        times = times or [int(time.time() * 1000)] * len(rows)
        self._rows += [(allowed(n), v, ms, step) for (step, n, v), ms in zip(rows, times, strict=True)]
        self.finalize("")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Sends what waits. Lightning calls this after every fit and test; the run goes on until `finish`."""
        rows, self._rows = self._rows, []
        if rows:
            self._tell(self._run.send, "metrics", rows)

    @rank_zero_only
    def finish(self, status: Status, checkpoint: Path | None = None, ended: int | None = None) -> None:
        """Ends the run, once, and waits until MLflow has everything or makes no progress.

        Args:
            checkpoint: the final one, kept if the configuration says so.
            ended: ms since 1970; None: now.
        """
        self.finalize(status)
        if not self._is_started or self._is_finished:
            return
        self._is_finished = True
        self.courier.takes_all = True
        self._tell(self._run.terminate, status, ended or int(time.time() * 1000))
        keeps = (self.log_checkpoint or self.register_as) and checkpoint and checkpoint.is_file()
        patience = self._patience(STOP_PATIENCE if status == "KILLED" else END_PATIENCE)
        if self.courier.wait(patience) and status == "FINISHED" and keeps:
            self._tell(self._run.upload, checkpoint, self.register_as, self.alias, UPLOAD_PATIENCE)
            self.courier.wait(UPLOAD_PATIENCE)
        if self.is_behind:
            self._warn(f"has not got everything; when it can: lit-gen track {self.folder}")

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Texts, numbers and nested ones, as parameters; see `MlflowRun.log_params`."""
        self._tell(
            self._run.log_params, flat_params(vars(params) if isinstance(params, Namespace) else params)
        )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._tell(self._run.set_tags, dict(tags))

    def log_text(self, text: str, artifact_file: str) -> None:
        """Keeps a text as an artifact, without secrets."""
        shown = without_secrets(text)
        self._tell(lambda: self._run.client.log_text(self._run.id, shown, artifact_file))

    def log_file(self, path: Path, artifact_folder: str | None = None) -> None:
        """Keeps a file, as it is when its turn comes, as an artifact."""
        self._tell(lambda: self._run.client.log_artifact(self._run.id, str(path), artifact_folder))

    def log_image(self, key: str, image: Tensor, step: int) -> None:
        """uint8 [H, W, C]."""
        pixels = image.squeeze(-1).cpu().numpy()  # one channel is [H, W] to MLflow
        self._tell(self._run.log_image, key, pixels, step)

    def log_picture(self, key: str, file: Path, step: int) -> None:
        """As `log_image`, of a picture file, as it is when its turn comes."""
        self._tell(lambda: self._run.log_image(key, np.asarray(read_picture(file).image), step))

    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Images that the run uses; a digest has at most 36 characters, a context is "training" or "test"."""
        self._tell(self._run.log_dataset, name, digest, context, profile)

    def log_scores(self, tags: Mapping[str, str]) -> None:
        """See `TakesScores`; becomes tags and the run's description, with its newest samples."""
        self.set_tags({key: text for key, text in tags.items() if key != "scores"})
        self._tell(lambda: self._run.log_note(tags.get("scores", ""), self._newest_samples()))

    def look_again(self) -> None:
        """Before all of a run is told once more: finds out what MLflow has of it."""
        self._tell(self._run.look)

    def view_command(self) -> str:
        """What a user opens to look at the run, or runs before; without secrets."""
        address, run = without_secrets(self.tracking_uri).rstrip("/"), self._run.run
        page = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if run else ""
        page += "?workflowType=machine_learning" if run else ""  # else MLflow shows traces of language models
        if address.startswith(("http:", "https:")):
            return address + page
        beside = str(Path(sys.executable).with_name("mlflow"))
        program = "mlflow" if shutil.which("mlflow") == beside else beside
        command = shlex.join([program, "ui", "--backend-store-uri", address])
        return f"{command}\nand open http://127.0.0.1:5000{page}" if page else command

    def _newest_samples(self) -> np.ndarray | None:
        files = (self.folder / "samples").glob("task*-epoch*[0-9].png")
        file = max(files, key=lambda file: file.stat().st_mtime, default=None)
        return None if file is None else np.asarray(read_picture(file).image)

    @rank_zero_only
    def _tell(self, method: Callable[..., None], *args: Any) -> None:
        """Leaves a call to the courier; returns at once."""
        self.start()
        self.courier.send(functools.partial(self._in_run, functools.partial(method, *args)))

    def _in_run(self, job: Callable[[], None]) -> None:
        """In the courier's thread. Where MLflow refuses the run itself, it is not asked with every job."""
        if self._is_refused:
            return
        if not self._run.is_open:
            try:
                self._run.open()
            except Exception as error:
                self._is_refused = not may_pass(error)
                raise
        job()

    def _patience(self, seconds: float) -> float:
        return 2 * seconds if self._is_database else seconds

    def _say_trouble(self, error: Exception | None) -> None:
        if error is None:
            log.info("MLflow answers again")
        else:
            self._warn("does not answer; the run goes on, and MLflow is told when it does", error)

    def _say_refusal(self, error: Exception) -> None:
        self._warn(f"refused something; everything is in {self.folder}", error)

    def _warn(self, what: str, error: Exception | None = None) -> None:
        why = f" ({type(error).__name__}: {' '.join(str(error).split())[:300]})" if error else ""
        log.warning("%s", without_secrets(f"MLflow at {self.tracking_uri} {what}{why}"))
