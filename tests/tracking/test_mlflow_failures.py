"""MLflow where it fails: a dead server is one warning, a hanging one costs seconds, processes meet."""

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from unittest.mock import Mock

import pytest
import torch
from mlflow_toys import client

from lit_gen.tracking import connection
from lit_gen.tracking import mlflow as tracking
from lit_gen.tracking.courier import Courier
from lit_gen.tracking.mlflow import TrackingLogger

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def warnings_of(caplog):
    return [
        r for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith("lit_gen.tracking")
    ]


def test_a_closed_port_is_one_warning(tmp_path, caplog):
    start = time.monotonic()
    logger = TrackingLogger(tmp_path / "run", f"http://user:secret@127.0.0.1:{free_port()}")
    assert logger.run_id is None and logger.is_silent
    for step in range(100):
        logger.log_metrics({"loss": 1.0}, step)
    logger.finish("FAILED")
    assert time.monotonic() - start < 30  # importing MLflow included
    (warning,) = warnings_of(caplog)
    assert "127.0.0.1" in warning.getMessage() and "secret" not in caplog.text


def test_a_server_that_accepts_and_never_answers_costs_five_seconds(tmp_path, caplog):
    connection.import_quietly()
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        logger = TrackingLogger(tmp_path / "run", f"http://127.0.0.1:{mute.getsockname()[1]}")
        start = time.monotonic()
        logger.start()
        assert 1 < time.monotonic() - start < 6
        logger.log_metrics({"loss": 1.0}, 0)
        logger.finish("FINISHED")
        assert time.monotonic() - start < 6.5
    assert len(warnings_of(caplog)) == 1


def test_settings_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "6")
    connection.import_quietly()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "6"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None if name == "psutil" else 1)
    TrackingLogger(tmp_path)
    with pytest.raises(ValueError, match="pip install psutil"):
        TrackingLogger(tmp_path, system_metrics=True)
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="logger=csv"):
        TrackingLogger(tmp_path)


def test_the_courier_keeps_order_and_stops_at_the_first_failure():
    done, failures = [], []
    courier = Courier(failures.append)
    for number in range(5):
        courier.send(lambda number=number: done.append(number))
    assert courier.wait(5) and done == [0, 1, 2, 3, 4]
    courier.send(lambda: courier.send(lambda: done.append(5)))  # a job may send others
    assert courier.wait(5) and done.pop() == 5
    courier.send(lambda: 1 / 0)
    courier.send(lambda: done.append("never"))
    assert not courier.wait(5)
    assert done == [0, 1, 2, 3, 4] and [type(f) for f in failures] == [ZeroDivisionError]


def test_the_courier_loses_patience_with_a_job_that_hangs():
    failures = []
    courier = Courier(failures.append)
    courier.send(lambda: [courier.send(lambda: time.sleep(0.15)) for _ in range(3)])
    assert courier.wait(0.25)  # patience is for one job, not for all
    courier.send(lambda: time.sleep(2))
    assert not courier.wait(0.1)
    assert [type(f) for f in failures] == [TimeoutError]


def test_a_locked_database_is_tried_again_and_a_failure_at_once_one_time():
    from mlflow.exceptions import MlflowException

    def failing(times, words):
        return Mock(side_effect=[MlflowException(words)] * times + [None])

    for times, words in ((3, "(sqlite3.OperationalError) database is locked"), (1, "connection reset")):
        connection.carefully(job := failing(times, words))
        assert job.call_count == times + 1
    with pytest.raises(MlflowException):
        connection.carefully(job := failing(9, "connection reset"))
    assert job.call_count == 2


def test_the_command_to_look_at_runs_has_no_secret(tmp_path):
    logger = TrackingLogger(tmp_path, f"sqlite:///{tmp_path}/a b.db")
    program, *words = shlex.split(logger.view_command())
    assert program.endswith("mlflow")
    assert words == ["ui", "--backend-store-uri", f"sqlite:///{tmp_path}/a b.db"]
    logger = TrackingLogger(tmp_path, "postgresql://u:p@host/db")
    assert shlex.split(logger.view_command())[-1] == "postgresql://host/db"


_START_TOGETHER = """
import multiprocessing, sys
from pathlib import Path
from lit_gen.tracking.connection import connect, import_quietly
from lit_gen.tracking.mlflow import TrackingLogger

assert "mlflow" not in sys.modules  # logger=csv needs none
def run(number):
    together.wait()
    logger = TrackingLogger(home / "runs" / str(number))
    logger.log_metrics({"number": float(number)}, 0)
    logger.finish("FINISHED")
    assert not logger.is_silent

home = Path(sys.argv[1])
import_quietly()
connect(sys.argv[2])  # another database: imports all that is needed before the processes part
processes = multiprocessing.get_context("fork")
together = processes.Barrier(10)
ten = [processes.Process(target=run, args=(number,)) for number in range(10)]
for process in ten:
    process.start()
for process in ten:
    process.join()
sys.exit(sum(process.exitcode for process in ten))
"""


@pytest.mark.slow
def test_ten_processes_that_start_together_on_no_database_all_get_their_run(tmp_path, database):
    command = [sys.executable, "-c", _START_TOGETHER, str(tmp_path), database]
    assert subprocess.run(command, check=False).returncode == 0
    mlflow = client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in mlflow.search_experiments() if e.name == "lit-gen"]
    runs = mlflow.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["number"] for run in runs) == list(range(10))
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.fixture
def server(tmp_path, database):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(tmp_path / "art")]
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, "the server did not start"
            time.sleep(0.3)

    def kill():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    yield url, kill
    kill()


@pytest.mark.slow
def test_a_real_server_keeps_the_run_and_may_die_midway(tmp_path, server, caplog, monkeypatch):
    url, kill = server
    # A test machine may be busy; what is measured is what happens when the server is gone.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setattr(tracking, "SERVER_PATIENCE", 120.0)
    logger = TrackingLogger(tmp_path / "run", url, experiment_name="served", log_checkpoint=True)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"loss": 0.5}, 7)
    logger.log_image("samples", torch.zeros(8, 8, 3, dtype=torch.uint8), 1)
    logger.finish("FINISHED", checkpoint)
    assert not logger.is_silent
    run = client(url).get_run(logger.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"loss": 0.5}, {"lr": "0.1"})
    assert [f.path for f in client(url).list_artifacts(run.info.run_id, "checkpoints")] == [
        "checkpoints/last.ckpt"
    ]

    resumed = TrackingLogger(tmp_path / "run", url, experiment_name="served")
    assert resumed.run_id == logger.run_id
    kill()
    monkeypatch.undo()
    caplog.clear()
    slowest = 0.0
    for step in range(3000):
        start = time.perf_counter()
        resumed.log_metrics({"loss": 1.0}, step)
        slowest = max(slowest, time.perf_counter() - start)
    start = time.monotonic()
    resumed.finish("FINISHED")
    assert time.monotonic() - start < 6 and slowest < 2
    assert resumed.is_silent and len(warnings_of(caplog)) == 1
