"""Where MLflow keeps its runs: the address, its secrets, a database that several processes want to create."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from lit_gen.core.types import InputError

ARTIFACTS = "mlartifacts"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
_LOCK_SECONDS = 300
_BUSY_SECONDS = 60.0
_AT_ONCE = 0.5  # seconds; with the timeout of a request this stays below 5


def resolve_uri(tracking_uri: str | None, folder: Path) -> str:
    """The tracking server or database of a run.

    The key comes first, then MLFLOW_TRACKING_URI, then a SQLite file beside the folder `runs/`, or beside the
    run's folder where that is not in `runs/`.

    Raises:
        InputError: MLflow cannot keep runs there.
    """
    source = "logger.tracking_uri" if tracking_uri else "MLFLOW_TRACKING_URI"
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not uri:
        home = folder.resolve().parent
        home = home.parent if home.name == "runs" else home
        return f"sqlite:///{home / 'mlflow.db'}"
    scheme = uri.split(":", 1)[0].split("+", 1)[0].lower() if ":" in uri or uri == "databricks" else ""
    if scheme in _DATABASES or scheme in _SERVERS:
        return uri
    if scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("1", "true"):
        return uri
    hint = (
        "MLflow no longer keeps runs in plain folders, unless MLFLOW_ALLOW_FILE_STORE=true is set"
        if scheme in ("", "file")
        else f"MLflow knows no {scheme!r}"
    )
    raise InputError(
        f"{source}={without_secrets(uri)}: {hint}. Give sqlite:///<file>, http(s)://<server> or another "
        f"database ({', '.join(_DATABASES)}), or null for a SQLite file beside the runs; logger=csv needs no "
        "MLflow."
    )


def without_secrets(text: str) -> str:
    """The text with `user:password@` taken out of every address in it."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def move_credentials(uri: str) -> str:
    """Hands user and password of a server's address to MLflow's own variables and returns the bare address.

    They would show in MLflow's error messages otherwise. A database needs them in its address.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password or ""))
    return without_secrets(uri)


def check_installed(system_metrics: bool) -> None:
    """Raises InputError when a package that the configuration asks for is missing."""
    if importlib.util.find_spec("mlflow") is None:
        raise InputError("logger=mlflow: MLflow is not installed; pip install mlflow, or use logger=csv")
    if system_metrics and importlib.util.find_spec("psutil") is None:
        raise InputError(
            "logger.system_metrics=true: MLflow measures with psutil, which is not installed; "
            "pip install psutil, or leave it false"
        )


def import_quietly() -> None:
    """Imports MLflow with settings for this process, where the user made none: 4 s, no telemetry."""
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # see `carefully`
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # noqa: F401

    # They speak of every migration and retry; TrackingLogger says once what matters. After the import, which
    # sets levels of its own.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def is_local(uri: str) -> bool:
    return uri.startswith("sqlite:")


def prepare_database(uri: str) -> None:
    """Creates a SQLite database or brings it up to date; of several processes one after another."""
    path = _database_path(uri)
    if path is None:
        return
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except MlflowException as error:
            if "out-of-date database schema" not in str(error):
                raise
            from mlflow.db import upgrade

            upgrade.callback(uri)


def carefully(job: Callable[[], None]) -> None:
    """Runs a job, which must bear to be repeated, once more where that can help.

    A failure that came at once, such as a connection that the server had closed meanwhile, is tried one more
    time; one that took seconds is not, since the second would take as long. A SQLite database that other
    processes keep locked is tried for a minute: its own timeout does not help a transaction that reads
    before it writes.
    """
    from mlflow.exceptions import MlflowException

    start, is_retry = time.monotonic(), False
    while True:
        try:
            return job()
        except MlflowException as error:
            seconds = time.monotonic() - start
            if "database is locked" in str(error) and seconds < _BUSY_SECONDS:
                # Not from the global generator, which belongs to the training.
                time.sleep(random.SystemRandom().uniform(0.01, 0.3))
            elif is_retry or seconds > _AT_ONCE:
                raise
            else:
                is_retry = True


def artifact_location(uri: str, experiment: str) -> str | None:
    """The folder for an experiment's files beside its SQLite database; None leaves it to the server."""
    path = _database_path(uri)
    if path is None:
        return None
    return (path.resolve().parent / ARTIFACTS / re.sub(r"[^\w.\-]", "_", experiment)).as_uri()


def _database_path(uri: str) -> Path | None:
    if not is_local(uri):
        return None
    path = uri.split("///", 1)[-1].split("?", 1)[0]
    return Path(path) if path and path != ":memory:" else None
