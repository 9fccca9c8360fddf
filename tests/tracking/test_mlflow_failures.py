"""MLflow where it fails: a dead server is one warning, a hanging one costs seconds, processes meet."""

import logging
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow_toys import client

from lit_gen.tracking import connection, mlflow_run
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


def test_a_closed_port_is_told_once_and_at_the_end(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tracking, "STOP_PATIENCE", 0.3)
    logger = TrackingLogger(tmp_path / "run", f"http://user:secret@127.0.0.1:{free_port()}")
    assert logger.run_id is None and logger.is_behind
    start = time.monotonic()
    for step in range(100):
        logger.log_metrics({"loss": 1.0}, step)
    logger.finish("KILLED")
    assert time.monotonic() - start < 2
    trouble, end = (warning.getMessage() for warning in warnings_of(caplog))
    assert "127.0.0.1" in trouble and "does not answer; the run goes on" in trouble
    assert f"lit-gen track {tmp_path / 'run'}" in end and "secret" not in caplog.text


def test_a_server_that_accepts_and_never_answers_costs_the_patience(tmp_path, caplog, monkeypatch):
    connection.import_quietly()
    monkeypatch.setattr(tracking, "START_PATIENCE", 0.5)
    monkeypatch.setattr(tracking, "END_PATIENCE", 0.5)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        logger = TrackingLogger(tmp_path / "run", f"http://127.0.0.1:{mute.getsockname()[1]}")
        start = time.monotonic()
        logger.start()
        logger.log_metrics({"loss": 1.0}, 0)
        logger.finish("FINISHED")
        assert 1 < time.monotonic() - start < 2
    assert len(warnings_of(caplog)) == 2


class LosesAnswers:
    """A client that does every kind of call, and the first time of each fails as if no answer had come."""

    def __init__(self, client):
        self._client, self._called = client, set()

    def __getattr__(self, name):
        def call(*args, **kwargs):
            answer = getattr(self._client, name)(*args, **kwargs)
            if name not in self._called:
                self._called.add(name)
                raise MlflowException("API request failed with exception: timed out")
            return answer

        return call


def test_nothing_is_lost_and_nothing_comes_twice_where_answers_are_lost(tmp_path, database, monkeypatch):
    connection.import_quietly()
    flaky = LosesAnswers(client(database))
    monkeypatch.setattr(mlflow_run, "connect", lambda address: flaky)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    logger = TrackingLogger(tmp_path / "run", database, "answers lost", register_as="answers-lost")
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"loss": 0.5}, 7)
    logger.log_image("samples", torch.zeros(8, 8, 3, dtype=torch.uint8), 1)
    logger.log_dataset("digits", "d1g35t", "training", {})
    logger.log_scores({"extractor": "lenet ab12", "scores": "good"})
    logger.finish("FINISHED", checkpoint)
    assert not logger.is_behind
    (run,) = client(database).search_runs(
        [client(database).get_experiment_by_name("answers lost").experiment_id]
    )
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    assert len(client(database).get_metric_history(run.info.run_id, "loss")) == 1
    assert "good" in run.data.tags["mlflow.note.content"]
    assert len(client(database).list_artifacts(run.info.run_id, "images")) == 2  # one, and a small one of it
    assert len(client(database).search_model_versions("name = 'answers-lost'")) == 1


def test_a_database_that_is_locked_at_the_start_gets_everything_later(
    tmp_path, database, monkeypatch, caplog
):
    monkeypatch.setattr(tracking, "START_PATIENCE", 0.3)
    file = shutil.copy(database.partition("///")[2], tmp_path / "locked.db")
    address = f"sqlite:///{file}?timeout=0.05"
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    logger = TrackingLogger(tmp_path / "run", address)
    for step in range(3):
        logger.log_metrics({"loss": 1.0}, step)
    assert logger.run_id is None and logger.is_behind
    assert "database is locked" in caplog.text or "no answer yet" in caplog.text
    lock.execute("ROLLBACK")
    logger.finish("FINISHED")
    assert not logger.is_behind
    run = client(address).get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert [p.step for p in client(address).get_metric_history(logger.run_id, "loss")] == [0, 1, 2]


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


def courier(told, **settings):
    return Courier(lambda error: isinstance(error, OSError), told.append, told.append, **settings)


def test_the_courier_keeps_order_and_tries_again():
    done, told, fails = [], [], iter([OSError("a"), OSError("b"), None])
    boy = courier(told, bearable=0)

    def sometimes():
        if error := next(fails):
            raise error
        done.append("sometimes")

    boy.send(lambda: done.append(0))
    boy.send(sometimes)
    boy.send(lambda: boy.send(lambda: done.append(2)))  # a job may send others
    boy.send(lambda: done.append(1))
    assert boy.wait(5) and done == [0, "sometimes", 1, 2] and not boy.lacks
    assert [str(each) for each in told] == ["a", "None"]


def test_the_courier_drops_what_is_refused_and_what_is_too_much(monkeypatch):
    done, told = [], []
    boy = courier(told)
    for number in (0, 1):
        boy.send(lambda: 1 / 0)
        boy.send(lambda number=number: done.append(number))
    assert boy.wait(5) and done == [0, 1] and boy.lacks
    assert [type(each) for each in told] == [ZeroDivisionError]
    monkeypatch.setattr("lit_gen.tracking.courier._MOST_WAITING", 2)
    full, gate = courier(told), threading.Event()
    full.send(gate.wait)
    for number in range(9):
        full.send(lambda number=number: done.append(number))
    gate.set()
    assert full.wait(5) and len(done) < 6 and full.lacks


def test_the_courier_is_waited_for_as_long_as_something_is_done():
    boy = courier([])
    for _ in range(3):
        boy.send(lambda: time.sleep(0.15))
    assert boy.wait(0.25)  # patience is for one job, not for all
    boy.send(lambda: time.sleep(2))
    assert not boy.wait(0.1)


def test_what_can_pass_is_tried_again_and_nothing_else():
    from mlflow.exceptions import RestException
    from requests.exceptions import ConnectionError
    from sqlalchemy.exc import OperationalError

    locked = OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))
    for error in (locked, MlflowException(str(locked)), ConnectionError("refused"), TimeoutError()):
        assert connection.may_pass(error)
    no_database = OperationalError("SELECT 1", {}, sqlite3.DatabaseError("file is not a database"))
    denied = RestException({"error_code": "PERMISSION_DENIED", "message": "no"})
    for error in (no_database, denied, TypeError("token"), FileNotFoundError("last.ckpt")):
        assert not connection.may_pass(error)


def test_the_command_to_look_at_runs_has_no_secret(tmp_path):
    logger = TrackingLogger(tmp_path, f"sqlite:///{tmp_path}/a b.db")
    program, *words = shlex.split(logger.view_command())
    assert program.endswith("mlflow")
    assert words == ["ui", "--backend-store-uri", f"sqlite:///{tmp_path}/a b.db"]
    logger = TrackingLogger(tmp_path, "postgresql://u:p@host/db")
    assert shlex.split(logger.view_command())[-1] == "postgresql://***@host/db"


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
    assert not logger.is_behind

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
def test_a_real_server_keeps_runs_told_at_once_and_may_die_midway(tmp_path, server, caplog, monkeypatch):
    url, kill = server
    # A test machine may be busy; what is measured is what happens when the server is gone.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    for patience in ("START_PATIENCE", "END_PATIENCE"):
        monkeypatch.setattr(tracking, patience, 120.0)
    logger = TrackingLogger(tmp_path / "run", url, experiment_name="served", log_checkpoint=True)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"loss": 0.5}, 7)
    logger.log_image("samples", torch.zeros(8, 8, 3, dtype=torch.uint8), 1)
    logger.finish("FINISHED", checkpoint)
    assert not logger.is_behind
    run = client(url).get_run(logger.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"loss": 0.5}, {"lr": "0.1"})
    assert [f.path for f in client(url).list_artifacts(run.info.run_id, "checkpoints")] == [
        "checkpoints/last.ckpt"
    ]

    def tell(number):
        one = TrackingLogger(tmp_path / f"run-{number}", url, experiment_name="served")
        for after in range(20):
            one.log_metrics({f"m{m}/task{k}": m + k for m in range(10) for k in range(after + 1)}, after)
        one.finish("FINISHED")
        return one.run_id, one.is_behind

    with ThreadPoolExecutor(4) as at_once:
        for run, is_behind in at_once.map(tell, range(4)):
            found = client(url).get_run(run).data.metrics
            assert found == {f"m{m}/task{k}": m + k for m in range(10) for k in range(20)} and not is_behind
            steps = [value.step for value in client(url).get_metric_history(run, "m3/task5")]
            assert sorted(steps) == list(range(5, 20))

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
    resumed.finish("KILLED")
    assert time.monotonic() - start < 7 and slowest < 2
    assert resumed.is_behind and len(warnings_of(caplog)) == 2
