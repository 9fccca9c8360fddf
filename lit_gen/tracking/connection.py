"""The way to MLflow: its address, the secrets in it, a database to make, calls that may fail once."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from filelock import FileLock

from lit_gen.core.files import disk_failure
from lit_gen.core.types import InputError
from lit_gen.tracking.masking import MASK, masked_keys, split_user, without_secrets

if TYPE_CHECKING:  # imported where it is used: logger=csv needs no MLflow, and it takes seconds
    from mlflow import MlflowClient

LOCK_SECONDS = 300.0
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_REFUSALS = (
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "FEATURE_DISABLED", "NOT_IMPLEMENTED"),
    *("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "INVALID_STATE"),
    *("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"),
)
_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")


def with_secrets(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it was typed, or one that was stored, with the tracking address of the environment
    where it is the same one.

    Raises:
        InputError: a secret was not kept, and was not given again.
    """
    logger, given = config.get("logger") or {}, os.environ.get("MLFLOW_TRACKING_URI")
    if given and MASK in str(logger.get("tracking_uri")) and logger["tracking_uri"] == without_secrets(given):
        config = config | {"logger": logger | {"tracking_uri": given}}
    for key, value in masked_keys(config):
        other_way = " or as MLFLOW_TRACKING_URI" if key == "logger.tracking_uri" else ""
        raise InputError(
            f"{key}={value}: {MASK} stands for a secret, which a run's files do not keep; give it again, as "
            f"{key}=...{other_way}"
        )
    return config


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
        return absolute_address("sqlite://", (home.parent if home.name == "runs" else home) / "mlflow.db")
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
    user, place = split_user(address.partition("://")[2])
    if scheme in ("http", "https") and user:
        name, _, password = user.partition(":")
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(name))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(password))
        return f"{scheme}://{place}"
    return absolute_address(address)


def sqlite_file(address: str) -> Path | None:
    """The file of a SQLite database; None for all other addresses.

    Raises:
        InputError: the address cannot be read.
    """
    if not address.startswith("sqlite:"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        path = make_url(address).database
    except ArgumentError as error:
        raise InputError(f"{address}: is no address; give sqlite:///<file>") from error
    return Path(path) if path and not path.startswith((":memory:", "file:")) else None


def absolute_address(address: str, file: Path | None = None) -> str:
    """That of a SQLite file, or of this one, with the whole path, quoted; all others as they are.

    Raises:
        InputError: versions of SQLAlchemy before 2.1 read no address of such a file.
    """
    if (file := file or sqlite_file(address)) is None:
        return address
    from sqlalchemy.engine import make_url

    quoted = make_url(address).set(database=str(file.absolute())).render_as_string(hide_password=False)
    if sqlite_file(quoted) != file.absolute():
        raise InputError(f"tracking_uri: SQLAlchemy 2.1 or newer is needed for the ? in {file}")
    return quoted


def import_quietly() -> None:
    """Imports MLflow with settings for this process, where the user made none: 30 s, no telemetry."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the courier tries again
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
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
            except MlflowException as error:
                if "database is locked" in str(error):
                    raise
                # An older MLflow made it; what else it may be is said at the next call.
                command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
                subprocess.run(command, capture_output=True, check=False)
    return MlflowClient(address)


def may_pass(error: Exception) -> bool:
    """Whether the same call may go well another time: nobody answered, or a database was locked."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    if isinstance(error, MlflowException):
        return error.error_code not in _REFUSALS and "not a database" not in str(error)
    if isinstance(error, SQLAlchemyError):
        return not isinstance(error, DBAPIError) or "not a database" not in str(error)
    is_here = isinstance(error, FileNotFoundError) or disk_failure(error)
    return isinstance(error, OSError) and not is_here  # those of requests too
