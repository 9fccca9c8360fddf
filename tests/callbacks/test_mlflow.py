"""MLflow: one run, continued on resume, whole parameters, no secrets; a dead server is one warning."""

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from callbacks import mlflow_store, mlflow_tracking
from callbacks.background import Courier
from callbacks.mlflow_tracking import TrackingLogger, flat
from lit_gen.core.types import InputError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
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
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_store.prepare_database(f"sqlite:///{path}")
    return f"sqlite:///{path}"


def client(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_default_database_is_beside_the_folder_of_runs(tmp_path, monkeypatch):
    assert mlflow_store.resolve_uri(None, tmp_path / "runs" / "a") == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert mlflow_store.resolve_uri(None, tmp_path / "mine") == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert mlflow_store.resolve_uri(None, tmp_path) == "http://somewhere:5000"
    assert mlflow_store.resolve_uri("sqlite:///x.db", tmp_path) == "sqlite:///x.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "gopher://host"])
def test_an_address_that_cannot_work_is_refused_at_once(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_URI=.*sqlite:///"):
        TrackingLogger(tmp_path)
    with pytest.raises(InputError, match=r"logger\.tracking_uri="):
        TrackingLogger(tmp_path, tracking_uri=uri)


def test_no_user_and_password_in_anything_that_is_kept(tmp_path):
    secret = "http://ann:pass%40word@host:5000"
    params = flat({"logger": {"tracking_uri": secret, "list": [secret]}})
    assert params == {"logger.tracking_uri": "http://host:5000", "logger.list": '["http://host:5000"]'}
    logger = TrackingLogger(tmp_path, tracking_uri=secret)
    assert logger.tracking_uri == "http://host:5000"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "pass@word"
    assert (
        mlflow_store.without_secrets("postgresql+psycopg2://u:p@q@db/x b@c")
        == "postgresql+psycopg2://db/x b@c"
    )


def test_parameters_are_flat_and_empty_ones_stay():
    assert flat({"a": {"b": 1e-3, "c": None}, "d": [1, 2], "e": {}, "f": "x", "g@": True}) == {
        "a.b": "0.001",
        "a.c": "null",
        "d": "[1, 2]",
        "e": "{}",
        "f": "x",
        "g_": "true",
    }


def test_a_run_is_kept_whole(tmp_path, database):
    logger = TrackingLogger(tmp_path / "run-a", database, experiment_name="whole", tags={"who": "test"})
    long = "x" * 10_000
    logger.log_hyperparams({f"key{i}": i for i in range(150)} | {"long": long, "some": "y" * 5000})
    for step in range(1200):
        logger.log_metrics({"train/loss": 1 / (step + 1)}, step)
    logger.log_metrics({"odd@name": 1.0}, 0)
    logger.set_tags({"git_commit": "abc"})
    logger.log_text("uri: http://u:p@host/x\n", "config.yaml")
    logger.log_image("samples", torch.zeros(10, 12, 1, dtype=torch.uint8), 3)
    logger.log_image("colours", torch.zeros(10, 12, 3, dtype=torch.uint8), 3)
    logger.log_dataset("digits", "d1g35t", "training", {"num_images": 100})
    logger.log_task(0, "0-1", {"fid/lenet": 2.0}, 0)
    logger.log_task(0, "0-1", {"fid/lenet": 3.0}, 1)
    logger.finalize("success")
    logger.finish("FINISHED")
    assert not logger.is_silent

    mlflow = client(database)
    run = mlflow.get_run(logger.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run-a")
    assert mlflow.get_experiment(run.info.experiment_id).name == "whole"
    assert len(run.data.params) == 152 and run.data.params["key149"] == "149"
    assert run.data.params["some"] == "y" * 5000
    assert len(run.data.params["long"]) == 6000 and run.data.params["long"].endswith("is whole)")
    history = mlflow.get_metric_history(logger.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(s, 1 / (s + 1)) for s in range(1200)]
    assert run.data.metrics["odd_name"] == 1.0
    assert run.data.tags["git_commit"] == "abc" and run.data.tags["who"] == "test"
    assert run.inputs.dataset_inputs[0].dataset.digest == "d1g35t"
    config = mlflow.download_artifacts(logger.run_id, "config.yaml", str(tmp_path))
    assert Path(config).read_text() == "uri: http://host/x\n"
    names = [entry.path for entry in mlflow.list_artifacts(logger.run_id, "images")]
    assert any("samples" in n and "+step+3+" in n and n.endswith(".png") for n in names)
    (child,) = mlflow.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{logger.run_id}'")
    assert child.info.status == "FINISHED" and child.data.tags["task_name"] == "0-1"
    points = mlflow.get_metric_history(child.info.run_id, "fid/lenet")
    assert [(m.step, m.value) for m in points] == [(0, 2.0), (1, 3.0)]


def test_a_resume_continues_the_run_and_changed_parameters_become_tags(tmp_path, database):
    first = TrackingLogger(tmp_path / "run", database)
    first.log_hyperparams({"lr": 1, "same": "s"})
    first.log_task(1, "2-3", {"fid": 1.0}, 1)
    first.finish("KILLED")
    assert client(database).get_run(first.run_id).info.status == "KILLED"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["mlflow_run_id"] == first.run_id

    second = TrackingLogger(tmp_path / "run", database)
    assert second.run_id == first.run_id
    assert client(database).get_run(first.run_id).info.status == "RUNNING"
    second.log_hyperparams({"lr": 2, "same": "s", "new": 3})
    second.log_task(1, "2-3", {"fid": 2.0}, 2)
    second.finish("FINISHED")
    run = client(database).get_run(first.run_id)
    assert run.data.params == {"lr": "1", "same": "s", "new": "3"}
    assert run.data.tags["changed.lr"] == "2" and "changed.same" not in run.data.tags
    children = client(database).search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{first.run_id}'"
    )
    assert [child.info.status for child in children] == ["FINISHED"]


def test_a_run_that_was_deleted_is_begun_anew(tmp_path, database):
    first = TrackingLogger(tmp_path / "run", database)
    client(database).delete_run(first.run_id)
    second = TrackingLogger(tmp_path / "run", database)
    third = TrackingLogger(tmp_path / "other", database, run_id="0" * 32)
    assert len({first.run_id, second.run_id, third.run_id}) == 3
    assert None not in (second.run_id, third.run_id)


def test_the_final_checkpoint_becomes_a_version_of_a_model(tmp_path, database):
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    logger = TrackingLogger(tmp_path / "run", database, register_as="digits-vae")
    logger.start()
    logger.finish("FINISHED", checkpoint)
    assert not logger.is_silent
    version = client(database).get_model_version_by_alias("digits-vae", "final")
    assert version.run_id == logger.run_id
    kept = client(database).download_artifacts(logger.run_id, "checkpoints/last.ckpt", str(tmp_path))
    assert Path(kept).read_bytes() == b"weights"


def test_a_failed_run_keeps_no_checkpoint(tmp_path, database):
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    logger = TrackingLogger(tmp_path / "run", database, log_checkpoint=True)
    logger.start()
    logger.finish("FAILED", checkpoint)
    assert client(database).get_run(logger.run_id).info.status == "FAILED"
    assert client(database).list_artifacts(logger.run_id) == []


def test_other_processes_than_the_first_do_nothing(tmp_path, monkeypatch):
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    logger = TrackingLogger(tmp_path / "run", f"sqlite:///{tmp_path / 'never.db'}")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    _ = logger.experiment
    logger.log_metrics({"a": 1.0}, 0)
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    logger.finish("FINISHED")
    assert logger.run_id is None and not list(tmp_path.iterdir())


def test_a_call_costs_far_less_than_a_millisecond(tmp_path, database):
    logger = TrackingLogger(tmp_path / "run", database)
    logger.start()
    durations = []
    for step in range(2000):
        start = time.perf_counter()
        logger.log_metrics({"train/loss": 1.0, "train/kl": 2.0}, step)
        durations.append(time.perf_counter() - start)
    logger.finish("FINISHED")
    assert sorted(durations)[1000] < 2e-4


def warnings_of(caplog):
    return [r for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith("callbacks")]


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
    import mlflow.tracking  # noqa: F401

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
    mlflow_store.import_quietly()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "6"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        mlflow_store.importlib.util, "find_spec", lambda name: None if name == "psutil" else 1
    )
    TrackingLogger(tmp_path)
    with pytest.raises(InputError, match="pip install psutil"):
        TrackingLogger(tmp_path, system_metrics=True)
    monkeypatch.setattr(mlflow_store.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="logger=csv"):
        TrackingLogger(tmp_path)


def test_the_courier_keeps_order_and_stops_at_the_first_failure():
    done, failures = [], []
    courier = Courier("test", failures.append)
    for number in range(5):
        courier.send(lambda number=number: done.append(number))
    assert courier.wait(5) and done == [0, 1, 2, 3, 4]
    courier.send(lambda: 1 / 0)
    courier.send(lambda: done.append("never"))
    assert not courier.wait(5)
    assert done == [0, 1, 2, 3, 4] and [type(f) for f in failures] == [ZeroDivisionError]


def test_the_courier_loses_patience_with_a_job_that_hangs():
    failures = []
    courier = Courier("test", failures.append)
    courier.send(lambda: time.sleep(0.15))
    courier.send(lambda: time.sleep(0.15))
    assert courier.wait(0.25)  # patience is for one job, not for all
    courier.send(lambda: time.sleep(2))
    assert not courier.wait(0.1)
    assert [type(f) for f in failures] == [TimeoutError]


def test_a_locked_database_is_tried_again_and_a_failure_at_once_one_time():
    from mlflow.exceptions import MlflowException

    def failing(times, words):
        tries = []

        def job():
            tries.append(words)
            if len(tries) <= times:
                raise MlflowException(words)

        return job, tries

    job, tries = failing(3, "(sqlite3.OperationalError) database is locked")
    mlflow_store.carefully(job)
    assert len(tries) == 4
    job, tries = failing(1, "connection reset")
    mlflow_store.carefully(job)
    assert len(tries) == 2
    job, tries = failing(9, "connection reset")
    with pytest.raises(MlflowException):
        mlflow_store.carefully(job)
    assert len(tries) == 2


def test_a_slow_failure_is_not_repeated(monkeypatch):
    from mlflow.exceptions import MlflowException

    tries = []

    def job():
        tries.append(1)
        time.sleep(0.02)
        raise MlflowException("timed out")

    monkeypatch.setattr(mlflow_store, "_AT_ONCE", 0.01)
    with pytest.raises(MlflowException):
        mlflow_store.carefully(job)
    assert len(tries) == 1


def test_the_command_to_look_at_runs_has_no_secret(tmp_path):
    logger = TrackingLogger(tmp_path, f"sqlite:///{tmp_path}/a b.db")
    words = shlex.split(logger.view_command())
    assert words[0].endswith("mlflow") and words[1:] == [
        "ui",
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/a b.db",
    ]
    logger = TrackingLogger(tmp_path, "http://u:p@host:5000")
    assert logger.view_command() == "http://host:5000"


_START_TOGETHER = """
import sys, time
from pathlib import Path
from callbacks.mlflow_store import import_quietly
from callbacks.mlflow_tracking import TrackingLogger

home, number = Path(sys.argv[1]), sys.argv[2]
import_quietly()
(home / f"ready-{number}").touch()
while len(list(home.glob("ready-*"))) < 4:
    time.sleep(0.01)
logger = TrackingLogger(home / "runs" / number)
logger.log_metrics({"rank": float(number)}, 0)
logger.finish("FINISHED")
(home / f"done-{number}").write_text(str(logger.run_id))
"""


@pytest.mark.slow
def test_four_processes_that_start_together_on_no_database_all_get_their_run(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", _START_TOGETHER, str(tmp_path), str(number)])
        for number in range(4)
    ]
    for process in processes:
        assert process.wait(400) == 0
    runs = {number: (tmp_path / f"done-{number}").read_text() for number in range(4)}
    mlflow = client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for number, run_id in runs.items():
        run = mlflow.get_run(run_id)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"rank": float(number)})
    assert len({mlflow.get_run(r).info.experiment_id for r in runs.values()}) == 1


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
    monkeypatch.setattr(mlflow_tracking, "SERVER_PATIENCE", 120.0)
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
