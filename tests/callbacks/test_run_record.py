"""What a run leaves behind, and that a resumed one leaves the same."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from lightning import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from mlflow import MlflowClient
from processes import together
from toys import ToyGenerator, make_data, make_trainer

from callbacks.checkpoints import RunCheckpoints
from callbacks.run_record import RunRecord, status_of
from callbacks.scoring import Scoring
from lit_gen.core import checkpoint
from lit_gen.core.files import disk_failure
from lit_gen.core.stages import fit_stages
from lit_gen.evaluation.board import Row
from lit_gen.tracking import mlflow
from lit_gen.tracking.metrics_file import MetricsFile
from lit_gen.tracking.mlflow import TrackingLogger
from lit_gen.tracking.names import shown_name
from lit_gen.tracking.provenance import PhaseTimes, costs, describe_data, git_commit

CONFIG = {"seed": 3, "logger": {"tracking_uri": "http://u:secret@host"}, "model": {"lr": 1e-2}}


class Scripted:
    """A judge whose rows are a function of the task seen last and the task looked at."""

    every_n_epochs, better = 0, {"fid": "lower"}

    def check(self, context):
        pass

    def rows(self, context, split):
        last = context.num_seen - 1
        return [
            Row(task, "fid", 10 * last + task + 1 / 3, "lenet", "ab12", split, 100, 100, 0)
            for task in range(last + 1)
        ]


def run(folder, *callbacks, loggers=(), resume=None, epochs=2, **settings):
    """A whole run, or the rest of one, as the command line does it."""
    scoring, saver = Scoring({"scripted": Scripted()}), RunCheckpoints(every_seconds=0)
    record = RunRecord(CONFIG, CONFIG, scoring.board)
    model, data = ToyGenerator(epochs), make_data()
    trainer = make_trainer(
        scoring,
        *callbacks,
        record,
        saver,
        logger=[MetricsFile(folder), *loggers],
        log_every_n_steps=1,
        default_root_dir=folder,
        **settings,
    )

    def after_task(task):
        trainer.test(model, datamodule=data, verbose=False)
        saver.save(trainer, task)

    try:
        fit_stages(trainer, model, data, ckpt_path=resume, after_task=after_task)
    except BaseException as error:
        record.finish(status_of(error), trainer)
        raise
    record.finish("FINISHED")
    return trainer, model, record


class StopAt(Callback):
    """Raises in the middle of an epoch."""

    def __init__(self, epoch, error=None):
        self.epoch, self.error = epoch, error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise self.error or RuntimeError("stopped")


class StopInTest(Callback):
    def __init__(self, task):
        self.task = task

    def on_test_end(self, trainer, pl_module):
        if trainer.datamodule.current_task == self.task:
            raise RuntimeError("stopped in test")


def test_checkpoints_and_summary_say_what_happened(tmp_path):
    _, _, record = run(tmp_path)
    for name in ("last.ckpt", "task-0.ckpt", "task-1.ckpt"):
        stored = checkpoint.read(tmp_path / "checkpoints" / name)
        assert stored.config == CONFIG | {"logger": {"tracking_uri": "http://host"}}
        assert stored.record["cpu_threads"] == torch.get_num_threads()
        assert stored.record["mlflow_run_id"] is None
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "FINISHED" and summary["seed"] == 3
    assert summary["world_size"] == 1 and summary["device"] == "cpu"
    assert summary["scores"]["fid/lenet"]["mean"] == pytest.approx(10.5 + 1 / 3)
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    phases = [(p["task"], p["phase"], p["images"]) for p in summary["phases"]]
    assert phases == [(task, phase, 160) for task in (0, 1) for phase in ("warmup", "main")]
    assert all(p["images_per_second"] > 0 for p in summary["phases"])
    assert sum(p["seconds"] for p in summary["phases"]) < summary["wall_seconds"] < 60
    record.finish("FAILED")
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


@pytest.mark.parametrize(
    ("stop", "missing"),
    [
        (StopAt(2), False),
        (StopInTest(1), False),
        (StopAt(0), True),
    ],
    ids=["in a phase", "in the last scoring", "before the first checkpoint"],
)
def test_a_resumed_run_leaves_the_same_files(tmp_path, stop, missing):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    _, expected, _ = run(whole)
    with pytest.raises(RuntimeError, match="stopped"):
        run(stopped, stop)
    assert json.loads((stopped / "summary.json").read_text())["status"] == "FAILED"
    last = stopped / "checkpoints" / "last.ckpt"
    assert last.exists() != missing
    _, model, _ = run(stopped, resume=None if missing else last)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert (stopped / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    summary = json.loads((stopped / "summary.json").read_text())
    reference = json.loads((whole / "summary.json").read_text())
    assert [p["images"] for p in summary["phases"]] == [p["images"] for p in reference["phases"]]


class LogsAtTheEndOfAnEpoch(Callback):
    """As callbacks of users do: Lightning logs such a mean after the last callback of the epoch's end."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("train/batches", float(batch_idx), on_step=False, on_epoch=True, batch_size=1)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The folder of an uninterrupted run, its final weights, and copies of it as it was at every write:
    what a kill at that moment would leave."""
    home = tmp_path_factory.mktemp("kills")
    folder, copies = home / "run", {}
    replace, log_metrics = os.replace, MetricsFile.log_metrics

    def look(moment) -> None:
        kept = [file for file in folder.rglob("*.c*") if not file.name.startswith(".")]
        state = frozenset((file.name, file.read_bytes()) for file in kept)
        if kept and state not in copies:
            copies[state] = shutil.copytree(folder, home / f"{len(copies)}"), moment

    def replaced(source, target) -> None:
        look(f"before {Path(target).name}")
        replace(source, target)
        look(f"after {Path(target).name}")

    def logged(self, metrics, step=None) -> None:
        log_metrics(self, metrics, step)
        if any(name.startswith(("val", "test")) for name in metrics):
            self.flush()
            look(f"after {min(metrics)}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        patch.setattr(MetricsFile, "log_metrics", logged)
        _, model, _ = run(folder, LogsAtTheEndOfAnEpoch(), epochs=1)
    return folder, model.state_dict(), list(copies.values())


def test_metrics_scores_and_weights_are_those_of_the_uninterrupted_run_after_a_kill_at_every_write(watched):
    folder, expected, copies = watched
    assert (folder / "metrics.csv").read_text().count("train/batches") == 4 and len(copies) > 12
    for copy, moment in copies:
        resume = checkpoint.read_newest(copy).path if checkpoint.has_checkpoint(copy) else None
        _, model, _ = run(copy, LogsAtTheEndOfAnEpoch(), resume=resume, epochs=1)
        for name in ("metrics.csv", "scores.csv"):
            assert (copy / name).read_bytes() == (folder / name).read_bytes(), (moment, name)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, expected[name]), (moment, name)


@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_full_disk_fails_the_run_and_with_room_it_goes_on_to_the_same_end(
    tmp_path, watched, monkeypatch, number
):
    """At one of the moments at which a file gets its name."""
    whole, expected, _ = watched
    replace, calls = os.replace, iter(range(1000))

    def full(source, target):
        if next(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError) as failure:
        run(tmp_path, LogsAtTheEndOfAnEpoch(), epochs=1)
    assert "cannot be written (No space left on device)" in disk_failure(failure.value)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "FAILED"
    resume = checkpoint.read_newest(tmp_path).path if checkpoint.has_checkpoint(tmp_path) else None
    _, model, _ = run(tmp_path, LogsAtTheEndOfAnEpoch(), resume=resume, epochs=1)
    for name in ("metrics.csv", "scores.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_summary_that_does_not_fit_makes_a_finished_run_a_failed_one(tmp_path, monkeypatch):
    tracker, (_, _, record) = Mock(), run(tmp_path)
    record._finished = None
    monkeypatch.setattr(RunRecord, "_loggers", lambda self, kind: [tracker] if kind is TrackingLogger else [])
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(errno.EDQUOT, "Disk quota exceeded")))
    with pytest.raises(OSError, match=r"summary\.json: cannot be written \(Disk quota exceeded\); about"):
        record.finish("FINISHED")
    assert tracker.finish.call_args.args[0] == "FAILED"


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "KILLED"), (SIGTERMException(), "KILLED")]
)
def test_how_a_run_ends_is_how_it_is_called(tmp_path, error, status):
    with pytest.raises((type(error), SystemExit)):
        run(tmp_path, StopAt(1, error))
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == status


def test_mlflow_has_everything_and_a_resume_goes_on_in_the_same_run(tmp_path, no_mlflow_settings, database):
    uri, client = database, MlflowClient(database)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("uri: http://u:secret@host\n")
    with pytest.raises(SystemExit):
        run(folder, StopAt(5, KeyboardInterrupt()), loggers=[TrackingLogger(folder, uri)])
    run_id = json.loads((folder / "run.json").read_text())["mlflow_run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    stored = checkpoint.read_newest(folder)
    assert stored.record["mlflow_run_id"] == run_id

    logger = TrackingLogger(folder, uri, log_checkpoint=True)
    run(folder, loggers=[logger], resume=stored.path)
    assert not logger.is_behind and logger.run_id == run_id
    entry = client.get_run(run_id)
    assert entry.info.status == "FINISHED"
    assert entry.data.params["model.lr"] == "0.01"
    assert entry.data.params["logger.tracking_uri"] == "http://host"
    assert entry.data.tags["world_size"] == "1" and entry.data.tags["version.torch"].startswith("2.")
    assert {item.dataset.name for item in entry.inputs.dataset_inputs} == {"SyntheticData"}
    files = {item.path for item in client.list_artifacts(run_id)}
    assert {"config.yaml", "scores.csv", "summary.json", "checkpoints", "images"} <= files
    text = Path(client.download_artifacts(run_id, "config.yaml", str(tmp_path))).read_text()
    assert text == "uri: http://host\n"
    scores = [entry.data.metrics[name] for name in ("fid/task0", "fid/task1")]
    assert scores == pytest.approx([10 + 1 / 3, 11 + 1 / 3])
    assert entry.data.tags["mlflow.user"] and "**fid** (lenet)" in entry.data.tags["mlflow.note.content"]
    (found,) = client.search_runs([entry.info.experiment_id], 'metrics."fid/mean" > 10')
    assert found.info.run_id == run_id


@pytest.mark.parametrize("lost_from", [1000, 22], ids=["all had arrived", "some was under way"])
def test_after_a_kill_mlflow_has_every_value_once(
    tmp_path, no_mlflow_settings, database, monkeypatch, lost_from
):
    logger, client = TrackingLogger(tmp_path, database), MlflowClient(database)
    send = logger._run.send
    monkeypatch.setattr(
        logger._run, "send", lambda kind, rows, *to: send(kind, [r for r in rows if arrives(r)], *to)
    )

    def arrives(row):
        return len(row) < 4 or row[3] < lost_from

    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path, StopAt(5), loggers=[logger])  # at step 27; the checkpoint is of step 24
    resumed = TrackingLogger(tmp_path, database)
    run(tmp_path, loggers=[resumed], resume=tmp_path / "checkpoints" / "last.ckpt")
    assert resumed.run_id == logger.run_id and not resumed.is_behind
    names = client.get_run(logger.run_id).data.metrics
    found = [(m.key, m.step, m.value) for n in names for m in client.get_metric_history(logger.run_id, n)]
    assert len({point[:2] for point in found}) == len(found)
    tasks = json.loads((tmp_path / "summary.json").read_text())["tasks"]
    costs = {(f"cost/{key}", line["task"], line[key]) for line in tasks for key in line if key != "task"}
    assert len(costs) == 10 and costs <= set(found), "of both tasks, whole ones"
    found = set(found) - costs
    rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]]
    told = {(shown_name(name, None), int(step), float(value)) for step, _, name, value in rows}
    assert found == {point for point in told if point[0]}


def test_other_images_have_another_digest():
    first, again, other = make_data(seed=0), make_data(seed=0), make_data(seed=1)
    digests = [describe_data(data)[0].digest for data in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    train, test = describe_data(first)
    assert train.digest != test.digest
    assert train.profile["num_images"] == sum(task.num_images for task in first.tasks)


def test_the_commit_is_that_of_the_checkout():
    if not (Path(__file__).parents[2] / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert git_commit() in (head, f"{head}-dirty")


def test_stopwatch_stands_still_in_validation_and_adds_up_over_resumes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lit_gen.tracking.provenance.time.monotonic", lambda: now[0])
    times = PhaseTimes()
    times.enter(0, "main")
    times.count(30)
    times.keep({"images": 9, "codes": 1})
    now[0] = 2.0
    times.stop()
    now[0] = 50.0  # validation
    times.go()
    times.count(30)
    now[0] = 53.0
    times.stop()
    resumed = PhaseTimes()
    resumed.load(times.report())
    now[0] = 60.0
    for task, phase in ((0, "main"), (0, "end"), (1, "main")):
        resumed.enter(task, phase)
        resumed.keep({"images": 7, "codes": 2})
        resumed.count(20)
        now[0] += 5.0
        resumed.stop()
    whole = {"task": 0, "phase": "main", "images": 80, "seconds": 10.0, "images_per_second": 8.0}
    assert resumed.report()[0] == whole | {"memory_bytes": {"images": 9, "codes": 2}}
    assert costs(resumed.report()) == [
        {"task": 0, "seconds": 15.0, "images_per_second": 6.7, "bytes_of_images": 9, "bytes_of_codes": 2},
        {"task": 1, "seconds": 5.0, "images_per_second": 4.0, "bytes_of_images": 7, "bytes_of_codes": 2},
    ]


def _keep_records(home):
    mlflow.END_PATIENCE = 2.0  # in this process alone
    several = {"devices": 2, "strategy": "ddp"}
    run(home / "dead", loggers=[TrackingLogger(home / "dead", "http://127.0.0.1:9")], **several)
    with pytest.raises(RuntimeError, match="x"):
        stop = StopAt(1, RuntimeError("x"))
        run(home / "fails", stop, loggers=[TrackingLogger(home / "fails")], **several)


@pytest.mark.slow
@pytest.mark.usefixtures("no_mlflow_settings")
def test_two_processes_keep_one_record_and_end_without_a_server_and_when_they_fail(tmp_path):
    home = tmp_path / "runs"
    together(2, _keep_records, home)
    for name, status in (("dead", "FINISHED"), ("fails", "FAILED")):
        summary = json.loads((home / name / "summary.json").read_text())
        assert (summary["world_size"], summary["status"]) == (2, status)
        if status == "FINISHED":  # two epochs of 80 images, on both processes together
            assert {phase["images"] for phase in summary["phases"]} == {160}
        assert name != "dead" or summary["mlflow_run_id"] is None
        lines = (home / name / "metrics.csv").read_text().splitlines()
        assert lines[0] == "step,epoch,metric,value" and len(lines) == len(set(lines))
