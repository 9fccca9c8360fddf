"""lit-gen track: a run folder in MLflow, whole and once."""

import errno
import json

import pytest
import torch
from mlflow_toys import client

from lit_gen.__main__ import main
from lit_gen.cli import track
from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.plots import write_picture
from lit_gen.tracking.metrics_file import MetricsFile
from lit_gen.tracking.mlflow import TrackingLogger

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


@pytest.fixture
def folder(tmp_path):
    """What a run of two tasks with logger=csv leaves that ended well."""
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 3\nlogger: null\nmodel: {lr: 0.1}\nchoices: {}\n")
    about = {"tags": {"device": "cpu"}}
    part = {"name": "digits", "digest": "d1g35t", "context": "training", "profile": {}}
    (folder / "start.json").write_text(json.dumps({"about": about | {"data": [part]}}))
    (folder / "log.txt").write_text("2026-01-02 03:04:05,678 INFO lit_gen: hello\n")
    (folder / "summary.json").write_text(json.dumps({"status": "FINISHED"}))
    metrics, board = MetricsFile(folder), Board()
    for task in (0, 1):
        metrics.epoch = lambda task=task: task
        for step in (3 * task, 3 * task + 1):
            metrics.log_metrics({"train/loss": 1 / (step + 1)}, step)
        metrics.epoch = lambda task=task: task + 1
        metrics.log_metrics({"test/fid": 2.0 + task}, 3 * task + 2)
        rows = [
            Row(seen, "fid", task + seen + 1 / 3, "lenet", "", "test", 9, 9, 0) for seen in range(task + 1)
        ]
        board.put(task, rows, 2, {})
        write_picture(folder / "samples" / f"task{task}-epoch000{task + 1}.png", torch.zeros(8, 8, 3).byte())
        write_picture(folder / "latent_map" / f"task{task}.png", torch.zeros(8, 8, 3).byte())
    metrics.flush()
    (folder / "scores.csv").write_text(board.csv())
    return folder


def kept(database, experiment):
    """All that MLflow has of the runs of an experiment, by their names; without times."""
    mlflow = client(database)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name(experiment).experiment_id])
    found = {}
    for run in runs:
        curves = {n: mlflow.get_metric_history(run.info.run_id, n) for n in run.data.metrics}
        assert run.info.run_name not in found
        found[run.info.run_name] = (
            run.info.status,
            run.data.params,
            {n: [(m.step, m.value) for m in points] for n, points in curves.items()},
            sorted(f.path.split("+timestamp")[0] for f in mlflow.list_artifacts(run.info.run_id, "images")),
            len(run.inputs.dataset_inputs),
            run.data.tags.get("mlflow.note.content", ""),
        )
    return found


def test_a_run_is_brought_whole_and_once(folder, database, capsys):
    words = ["track", str(folder), f"tracking_uri={database}", "experiment_name=tracked"]
    assert main(words) == 0
    assert "FINISHED, in MLflow" in capsys.readouterr().out
    found = kept(database, "tracked")
    status, params, curves, images, data, note = found["a run"]
    assert "| after 1 | 1.33 | 2.33 |" in note and "![samples](" in note and str(folder) in note
    assert (status, data, params["model.lr"]) == ("FINISHED", 1, "0.1")
    assert curves["train/loss"] == [(0, 1.0), (1, 0.5), (3, 0.25), (4, 0.2)]
    assert curves["fid/all"] == [(2, 2.0), (5, 3.0)]
    steps = ["latent_map+step+2", "latent_map+step+5", "samples+step+2", "samples+step+5"]
    assert images == sorted([f"images/{each}" for each in steps] * 2)  # each, and a small one of it
    run_id = json.loads((folder / "run.json").read_text())["mlflow_run_id"]
    assert 1 < client(database).get_run(run_id).info.start_time / 1000 < (folder / "log.txt").stat().st_mtime
    assert main(words) == 0
    assert kept(database, "tracked") == found


def test_what_was_told_in_part_is_completed_at_its_own_address(folder, database):
    logger = TrackingLogger(folder, database, "in part")
    logger.log_hyperparams({"model": {"lr": 0.1}})
    logger.catch_up([(3, "train/loss", 0.25), (2, "test/fid", 2.0)])
    assert logger.courier.wait(20)  # and was killed
    (folder / "summary.json").unlink()
    text = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(text + "5,2,test/fi")
    (folder / "config.yaml").write_text(
        f"seed: 3\nmodel: {{lr: 0.1}}\nlogger:\n  _target_: {track._TARGET}\n  tracking_uri: {database}\n"
        "  experiment_name: in part\nchoices: {}\n"
    )
    assert main(["track", str(folder)]) == 0
    status, params, curves, *_ = kept(database, "in part")["a run"]
    assert (status, params["seed"]) == ("KILLED", "3")
    assert sorted(curves["train/loss"]) == [(0, 1.0), (1, 0.5), (3, 0.25), (4, 0.2)]
    assert curves["fid/all"] == [(2, 2.0), (5, 3.0)]


def test_what_cannot_be_is_refused(folder, tmp_path, capsys, monkeypatch):
    assert main(["track", str(tmp_path)]) == 2
    assert "is no folder of a run (config.yaml is missing)" in capsys.readouterr().err
    assert main(["track", "tracking_uri=http://u:hunter2@h"]) == 2
    (folder / "metrics.csv").write_text("step,epoch,metric,value\n1,2\n")
    assert main(["track", str(folder), f"tracking_uri=gopher://u:hunter2@{tmp_path}"]) == 2
    assert "hunter2" not in capsys.readouterr().err
    (folder / "summary.json").write_text("[]")
    assert main(["track", str(folder)]) == 2
    assert "summary.json: is damaged" in capsys.readouterr().err

    def full(words):
        raise OSError(errno.ENOSPC, "No space left on device", "out.csv")

    monkeypatch.setattr(track, "run", full)
    assert main(["track"]) == 1
    assert capsys.readouterr().err == "lit-gen: out.csv: cannot be written (No space left on device)\n"
