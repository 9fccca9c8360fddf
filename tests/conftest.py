"""One thread: the small networks of the tests are much slower with two. And what tests of MLflow share."""

from __future__ import annotations

import logging
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests were started by nohup

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _heard():
    """Tests listen to loggers that a command line before them has made quiet."""
    for name in ("lit_gen", "callbacks", "datamodules"):
        logger = logging.getLogger(name)
        if not logger.propagate:
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
            logger.handlers.clear()
    yield


@pytest.fixture
def no_mlflow_settings(monkeypatch):
    """Each test starts from a user who has set nothing; what the logger sets is undone."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    mlflow_set = (
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    )
    yield
    for name in mlflow_set:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A database that all tests share, since making one takes seconds."""
    from lit_gen.tracking.connection import connect

    address = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    connect(address)
    return address
