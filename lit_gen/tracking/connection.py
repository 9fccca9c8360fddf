"""The way to MLflow: its address, the secrets in it, a database to make, calls that may fail once."""

from __future__ import annotations

import logging
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

if TYPE_CHECKING:  # imported where it is used: logger=csv needs no MLflow, and it takes seconds
    from mlflow import MlflowClient

LOCK_SECONDS = 300.0
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")


def without_secrets(value: Any) -> Any:
    """A text, or a nested configuration, with `user:password@` taken out of every address in it."""
    if isinstance(value, Mapping):
        return {key: without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return re.sub(r"(?<=://)[^/\s]*@", "", value) if isinstance(value, str) else value


def find_address(given: str | None, folder: Path) -> str:
    """The tracking server or database of the run in a folder.

    `given` comes first, then MLFLOW_TRACKING_URI, then a SQLite file beside the folder `runs/`, or beside the
    run's folder where that is not in `runs/`. User and password of a server go to MLflow's own variables,
    since they would show in its error messages; a database needs them in its address.

    Raises:
        ValueError: MLflow cannot keep runs there.
    """
    address = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        home = folder.resolve().parent
        return f"sqlite:///{(home.parent if home.name == 'runs' else home) / 'mlflow.db'}"
    scheme = re.split(r"[:+]", address)[0].lower() if ":" in address or address == "databricks" else "file"
    allows_files = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("1", "true")
    if scheme not in (*_DATABASES, *_SERVERS, *(["file"] if allows_files else [])):
        files = "no longer keeps runs in plain folders, unless MLFLOW_ALLOW_FILE_STORE=true is set"
        raise ValueError(
            f"{'tracking_uri' if given else 'MLFLOW_TRACKING_URI'}={without_secrets(address)}: MLflow "
            f"{files if scheme == 'file' else f'knows no {scheme!r}'}. Give sqlite:///<file>, "
            f"http(s)://<server> or another database ({', '.join(_DATABASES)}), or null for a SQLite file "
            "beside the runs; logger=csv needs no MLflow."
        )
    parts = urlsplit(address)
    if scheme in ("http", "https") and parts.username is not None:
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password or ""))
        return without_secrets(address)
    return address


def sqlite_file(address: str) -> Path | None:
    """The file of a SQLite database; None for all other addresses."""
    path = address.split("///", 1)[-1].split("?", 1)[0]
    return Path(path) if address.startswith("sqlite:") and path != ":memory:" else None


def import_quietly() -> None:
    """Imports MLflow with settings for this process, where the user made none: 4 s, no telemetry."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # see `carefully`
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # noqa: F401

    # They speak of every migration and retry; the logger says once what matters. After the import, which sets
    # levels of its own.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    for name in ("alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(address: str) -> MlflowClient:
    """A client; a SQLite database is made or brought up to date, by one of several processes at a time."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if (database := sqlite_file(address)) is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock", timeout=LOCK_SECONDS):
            try:
                MlflowClient(address).search_experiments(max_results=1)  # makes what is missing
            except MlflowException:  # an older MLflow made it; what else it may be is said at the next call
                command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
                subprocess.run(command, capture_output=True, check=False)
    return MlflowClient(address)


def carefully(job: Callable[[], Any]) -> None:
    """Does a job, which must bear to be repeated, once more where that can help.

    What failed at once, as over a connection that the server had closed meanwhile, is tried again; what took
    seconds is not. A SQLite database that other processes keep locked is tried for a minute: its own timeout
    does not help a transaction that reads before it writes.
    """
    from mlflow.exceptions import MlflowException

    start, is_retry = time.monotonic(), False
    while True:
        try:
            job()
            return
        except MlflowException as error:
            seconds, is_locked = time.monotonic() - start, "database is locked" in str(error)
            if seconds > (60 if is_locked else 0.5) or (is_retry and not is_locked):
                raise
            is_retry = is_retry or not is_locked
            # Not from the global generator, which belongs to the training.
            time.sleep(random.SystemRandom().uniform(0.01, 0.3) if is_locked else 0)
