"""lit-gen evaluate ckpt=RUN@all: the scores that training would have given, after it and beside it."""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest
from mlflow_toys import client
from processes import locked_by_another
from test_runs import TINY, scores, train, weights

from lit_gen.__main__ import main
from lit_gen.cli.lock import RunLock
from lit_gen.tracking.metrics_file import read_metrics

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, database):
    """Two runs, alike but for the moment at which they are scored; in MLflow, both."""
    folders = {when: tmp_path_factory.mktemp(when) / when for when in ("now", "later")}
    for when, folder in folders.items():
        words = ["logger=mlflow", f"logger.tracking_uri={database}", f"scores={when}"]
        assert train(folder, *words) == 0
    return folders


@pytest.fixture
def later(runs, tmp_path):
    """A copy of the run that was not scored."""
    return shutil.copytree(runs["later"], tmp_path / "run")


def curves(folder):
    return {
        (step, epoch, name): value
        for step, epoch, name, value in read_metrics(folder / "metrics.csv")
        if name.startswith("test/")
    }


def in_mlflow(folder, database):
    """How a run and those of its tasks ended, and their curves, but for what a clock decides."""
    mlflow = client(database)
    run = mlflow.get_run(json.loads((folder / "run.json").read_text())["mlflow_run_id"])
    only = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    found = {}
    for each in [run, *mlflow.search_runs([run.info.experiment_id], only)]:
        name = each.data.tags.get("task", "run")
        for key in each.data.metrics:
            points = mlflow.get_metric_history(each.info.run_id, key)
            found |= {(name, key, point.step): point.value for point in points}
        found |= {(name, "status", 0): ["FINISHED", "RUNNING"].index(each.info.status)}
    images = {f.path.split("+timestamp")[0] for f in mlflow.list_artifacts(run.info.run_id, "images")}
    return found, images, run.info.end_time


def fake_run(source, folder):
    """What a run of two tasks does while it is looked at, step by step; the second task is done twice."""
    lock = RunLock(folder)
    lock.take()
    yield "before the configuration"
    for name in ("start.json", "run.json", "config.yaml", "metrics.csv"):
        shutil.copy(source / name, folder)
    (folder / "checkpoints").mkdir()
    yield "before the first task"
    for task in (0, 1, 1):
        aside = shutil.copy(source / "checkpoints" / f"task-{task}.ckpt", folder / "aside")
        os.replace(aside, folder / "checkpoints" / f"task-{task}.ckpt")
        yield "after a task"
        assert not (folder / "summary.json").exists() and len(curves(folder)) == len(curves(source))
    shutil.copy2(source / "summary.json", folder)
    lock.release()
    yield "at the end"


def test_a_run_that_is_followed_is_scored_as_it_would_have_scored_itself(
    runs, tmp_path, database, capsys, monkeypatch
):
    assert all(value.equal(weights(runs["later"])[name]) for name, value in weights(runs["now"]).items())
    assert not (runs["later"] / "scores.csv").exists()
    folder = tmp_path / "run"
    folder.mkdir()
    steps = fake_run(runs["later"], folder)
    monkeypatch.setattr("lit_gen.cli.scores.sleep", lambda seconds: next(steps))
    ended = in_mlflow(runs["later"], database)[2]
    assert main(["evaluate", f"ckpt={folder}@all", "follow=true", f"out={tmp_path}/rows.json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said if ".ckpt: " in line] == ["task-0.ckpt", *["task-1.ckpt"] * 2]
    assert f"{folder}: 0 scored, waiting for a run to begin" in said
    assert f"{folder}: 1 scored, waiting for the next task" in said
    assert scores(folder) == scores(runs["now"])
    assert (folder / "matrix.png").read_bytes() == (runs["now"] / "matrix.png").read_bytes()
    told = [json.loads((each / "summary.json").read_text())["scores"] for each in (folder, runs["now"])]
    assert told[0] == told[1] and "fid/lenet_digits" in told[0]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["checkpoint"], row["after_task"]) for row in rows} == {(f"task-{n}.ckpt", n) for n in (0, 1)}
    assert curves(folder) == pytest.approx(curves(runs["now"]), rel=1e-6)  # which Lightning made float32
    (found, images, end), (expected, those, _) = (in_mlflow(each, database) for each in (folder, runs["now"]))
    found, expected = ({k: v for k, v in each.items() if "cost/" not in k[1]} for each in (found, expected))
    assert found == pytest.approx(expected, rel=1e-6)
    assert images == those and end == pytest.approx(ended, abs=5000)


def test_rows_are_replaced_and_those_of_others_stay(runs, later):
    changed = (later / "summary.json").stat().st_mtime_ns
    assert main(["evaluate", f"ckpt={later}@last", "extractor=lenet_mnist"]) == 0
    assert {row["after_task"] for row in csv.DictReader((later / "scores.csv").open())} == {"1"}
    assert main(["evaluate", f"ckpt={later}@task-0,task-1"]) == 0
    lines = scores(later).splitlines()
    assert set(scores(runs["now"]).splitlines()) < set(lines) and len(lines) == len(set(lines))
    assert sum(",lenet_mnist," in line for line in lines) == 3
    rows = read_metrics(later / "metrics.csv")
    assert len({(step, name) for step, _, name, _ in rows}) == len(rows)
    assert curves(runs["now"]).keys() < curves(later).keys()
    summary = json.loads((later / "summary.json").read_text())["scores"]
    assert {"fid/lenet_digits", "fid/lenet_mnist", "kl"} <= set(summary)
    assert summary["fid/lenet_digits"]["forgetting"] is not None
    assert (later / "summary.json").stat().st_mtime_ns == changed
    assert not [file for file in later.iterdir() if file.name.startswith(".")]


def test_a_run_that_is_left_or_died_says_so(later, capsys, monkeypatch):
    def leave(seconds):
        raise KeyboardInterrupt

    (later / "summary.json").unlink(), (later / "checkpoints" / "task-1.ckpt").unlink()
    before = (later / "metrics.csv").read_text()
    monkeypatch.setattr("lit_gen.cli.scores.sleep", leave)
    with locked_by_another(later), pytest.raises(SystemExit) as ended:
        main(["evaluate", f"ckpt={later}@all", "follow=true"])
    assert ended.value.code == 130 and not (later / ".scores.lock").exists()
    assert capsys.readouterr().out.endswith("stopped; scored so far: task-0.ckpt\n")
    assert (later / "metrics.csv").read_text() == before and (later / "scores.csv").exists()
    (later / "checkpoints" / "task-0.ckpt").unlink(), (later / ".lock").unlink()
    assert main(["evaluate", f"ckpt={later}@all", "follow=true"]) == 1
    assert f"killed before its end; go on with it: lit-gen train resume={later}\n" in capsys.readouterr().out


def test_what_cannot_be_scored_is_refused(runs, later, tmp_path, capsys):
    def refused(ckpt, *words):
        assert main(["evaluate", f"ckpt={ckpt}", *words]) == 2
        return capsys.readouterr().err

    before = {file: file.stat().st_mtime_ns for file in later.rglob("*")}
    assert "there is no task-9.ckpt; there are @task-0, @task-1" in refused(f"{later}@task-9")
    assert "@worst is none of @all, @last, @best, @task-2" in refused(f"{later}@worst")
    file = later / "checkpoints" / "task-0.ckpt"
    assert f"{file} is a file; @ goes with a run folder" in refused(f"{file}@all")
    assert "does not exist" in refused(f"{tmp_path}/nowhere@all")
    for ckpt in (later, f"{later}@last"):
        assert "ckpt=RUN@all follow=true" in refused(ckpt, "follow=true")
    assert "holds no task-<k>.ckpt" in refused(f"{tmp_path}@all")
    assert "scores: expected one of 'now', 'later'" in _train_refused(tmp_path, capsys)
    with locked_by_another(later) as process:
        assert f"process {process} on" in refused(f"{later}@all")
    with locked_by_another(runs["now"]):
        assert "this run scores itself as it trains" in refused(f"{runs['now']}@all", "follow=true")
    assert {file: file.stat().st_mtime_ns for file in later.rglob("*") if file.name != ".lock"} == before


def _train_refused(tmp_path, capsys):
    assert main(["train", *TINY, "scores=never", f"output_dir={tmp_path}/x"]) == 2
    return capsys.readouterr().err
