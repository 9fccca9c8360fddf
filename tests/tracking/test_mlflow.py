"""MLflow: one run, continued on resume, whole parameters, no secrets."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from mlflow_toys import client

from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.note import in_tags
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.mlflow import TrackingLogger
from lit_gen.tracking.mlflow_run import flat_params
from lit_gen.tracking.names import shown_name
from lit_gen.tracking.pictures import TakesImages, TakesScores

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


def row(task, value, metric="fid", extractor="lenet", split="test"):
    return Row(task, metric, value, extractor, "ab12", split, 100, 100, 0)


def test_default_database_is_beside_the_folder_of_runs(tmp_path, monkeypatch):
    beside = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert TrackingLogger(tmp_path / "runs" / "a").tracking_uri == beside
    assert TrackingLogger(tmp_path / "mine").tracking_uri == beside
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert TrackingLogger(tmp_path).tracking_uri == "http://somewhere:5000"
    monkeypatch.chdir(tmp_path)
    assert TrackingLogger(tmp_path, "sqlite:///x.db").tracking_uri == f"sqlite:///{tmp_path}/x.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "gopher://host"])
def test_an_address_that_cannot_work_is_refused_at_once(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"MLFLOW_TRACKING_URI=.*sqlite:///"):
        TrackingLogger(tmp_path)
    with pytest.raises(ValueError, match=r"tracking_uri=.*sqlite:///"):
        TrackingLogger(tmp_path, tracking_uri=uri)


def test_no_user_and_password_in_anything_that_is_kept(tmp_path):
    secret = "http://ann:pass%40word@host:5000"
    params = flat_params({"logger": {"tracking_uri": secret, "list": [secret]}})
    assert params == {"logger.tracking_uri": "http://host:5000", "logger.list": '["http://host:5000"]'}
    logger = TrackingLogger(tmp_path, tracking_uri=secret)
    assert logger.tracking_uri == logger.view_command() == "http://host:5000"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "pass@word"
    nested = {"a": ["postgresql+psycopg2://u:p@q@db/x b@c", {"b": "plain"}], "n": 1}
    assert without_secrets(nested) == {"a": ["postgresql+psycopg2://***@db/x b@c", {"b": "plain"}], "n": 1}


def test_parameters_are_flat_and_empty_ones_stay():
    assert flat_params({"a": {"b": 1e-3, "c": None}, "d": [1, 2], "e": {}, "f": "x", "g@": True}) == {
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
    logger.set_tags({"git_commit": "abc", "from": "http://u:p@host/x", "much": "z" * 9000})
    logger.log_text("uri: http://u:p@host/x\n", "config.yaml")
    logger.log_image("samples", torch.zeros(10, 12, 1, dtype=torch.uint8), 3)
    logger.log_image("colours", torch.zeros(10, 12, 3, dtype=torch.uint8), 3)
    logger.log_dataset("digits", "d1g35t", "training", {"num_images": 100})
    logger.log_scores({"extractor": "lenet ab12", "scores": "| a |"})
    logger.finalize("success")
    logger.finish("FINISHED")
    assert not logger.is_behind

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
    assert run.data.tags["from"] == "http://host/x" and run.data.tags["much"].endswith("is whole)")
    assert run.inputs.dataset_inputs[0].dataset.digest == "d1g35t"
    config = mlflow.download_artifacts(logger.run_id, "config.yaml", str(tmp_path))
    assert Path(config).read_text() == "uri: http://host/x\n"
    names = [entry.path for entry in mlflow.list_artifacts(logger.run_id, "images")]
    assert any("samples" in n and "+step+3+" in n and n.endswith(".png") for n in names)
    assert run.data.tags["extractor"] == "lenet ab12" and run.data.tags["mlflow.user"]
    note = run.data.tags["mlflow.note.content"]
    assert note == f"| a |\n\nRun folder: `{tmp_path / 'run-a'}`"
    assert isinstance(logger, TakesImages) and isinstance(logger, TakesScores)


def test_a_resume_continues_the_run_and_changed_parameters_become_tags(tmp_path, database):
    first = TrackingLogger(tmp_path / "run", database)
    first.log_hyperparams({"lr": 1, "same": "s"})
    first.set_tags({"mlflow.source.name": "lit-gen train password=abc"})
    first.finish("KILLED")
    assert client(database).get_run(first.run_id).info.status == "KILLED"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["mlflow_run_id"] == first.run_id

    second = TrackingLogger(tmp_path / "run", database)
    assert second.run_id == first.run_id
    assert client(database).get_run(first.run_id).info.status == "RUNNING"
    second.log_hyperparams({"lr": 2, "same": "s", "new": 3})
    second.set_tags({"mlflow.source.name": "lit-gen train resume=run"})
    second.finish("FINISHED")
    run = client(database).get_run(first.run_id)
    assert run.data.params == {"lr": "1", "same": "s", "new": "3"}
    assert run.data.tags["changed.lr"] == "2" and "changed.same" not in run.data.tags
    assert run.data.tags["mlflow.source.name"] == "lit-gen train password=***"


NAMES = {
    "train/loss": "train/loss",
    "val/loss": "val/loss",
    "val/fid/lenet": "val/fid",
    "val/fid/lenet/task0": None,
    "test/loss": "test/loss",
    "test/loss/task0": None,
    "test/fid/lenet/task1": "fid/task1",
    "test/fid/inception/task1": "fid-inception/task1",
    "test/fid/lenet": "fid/all",
    "test/mean/fid/lenet": "fid/mean",
    "test/forgetting/recall/lenet": "recall/forgetting",
    "test/backward_transfer/fid/lenet": None,
    "test/floor/fid/lenet/task0": None,
    "test/local/fid/lenet/task0": None,
    "test/kid/lenet": "test/kid",
    "test/accuracy": "accuracy/all",
    "epoch": None,
    "system/cpu": "system/cpu",
}


def test_metrics_make_few_groups_and_a_run_of_an_older_version_keeps_its_names(tmp_path, database):
    assert {name: shown_name(name, "lenet") for name in NAMES} == NAMES
    logger = TrackingLogger(tmp_path / "new", database)
    logger.log_hyperparams({"extractor": {"name": "lenet"}})
    logger.log_metrics(dict.fromkeys(NAMES, 1.0), 3)
    old = TrackingLogger(tmp_path / "old", database)
    client(database).log_metric(old.run_id, "test/fid/lenet/task0", 1.0, step=3)
    for each in (logger, old):
        each.finish("KILLED")
    resumed = TrackingLogger(tmp_path / "old", database)
    resumed.catch_up([(3, "test/fid/lenet/task0", 1.0), (7, "test/fid/lenet/task0", 2.0)])
    resumed.finish("FINISHED")
    assert set(client(database).get_run(logger.run_id).data.metrics) == set(NAMES.values()) - {None}
    assert client(database).get_run(old.run_id).data.metrics == {"test/fid/lenet/task0": 2.0}


def test_a_note_fits_into_a_tag_for_any_number_of_tasks():
    for num_tasks in (2, 30, 200):
        board = Board()
        for after in range(num_tasks):
            rows = [row(task, 100.0 + task) for task in range(after + 1)]
            floors = [each._replace(metric="floor_fid", value=5.5) for each in rows]
            board.put(after, rows + floors, num_tasks, {"fid": "lower"})
        tags = in_tags(board)
        assert len(tags["scores"]) < 4000 and f"mean {99.5 + num_tasks / 2:.0f}" in tags["scores"]
        assert tags["extractor"] == "lenet ab12"
    assert in_tags(board.until(1))["floor.fid.lenet"].startswith("5.50, 5.50, ")


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
    assert not logger.is_behind
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
    for step in range(1000):
        start = time.perf_counter()
        logger.log_metrics({"train/loss": 1.0, "train/kl": 2.0}, step)
        durations.append(time.perf_counter() - start)
    logger.finish("FINISHED")
    assert sorted(durations)[500] < 2e-4


def test_the_system_is_measured_and_the_users_address_stays(tmp_path, database, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    logger = TrackingLogger(tmp_path / "run", database, system_metrics=True)
    logger.start()
    time.sleep(0.5)
    logger.finish("FINISHED")
    assert not logger.is_behind and os.environ["MLFLOW_TRACKING_URI"] == "http://elsewhere"
    run = client(database).get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert "system/cpu_utilization_percentage" in run.data.metrics


def test_any_folder_any_name_of_an_experiment_and_tags_that_are_numbers(tmp_path):
    folder = tmp_path / "a?b%20c #d" / "run"
    folder.mkdir(parents=True)
    logger = TrackingLogger(folder, experiment_name="\xfc" * 300, tags={"v": 3})
    logger.start()
    logger.log_text("hello", "said.txt")
    logger.finish("FINISHED")
    assert not logger.is_behind
    assert {path.name for path in folder.parent.iterdir()} - {"mlflow.db.lock"} == {
        "run",
        "mlflow.db",
        "mlartifacts",
    }
    (kept,) = (folder.parent / "mlartifacts").iterdir()
    assert len(kept.name.encode()) < 200 and [f.read_text() for f in kept.rglob("said.txt")] == ["hello"]
    assert client(logger.tracking_uri).get_run(logger.run_id).data.tags["v"] == "3"
    again = TrackingLogger(folder)
    assert again.run_id == logger.run_id
