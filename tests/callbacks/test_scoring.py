"""The scoring callback: when it asks, what it logs and leaves behind, for any number of processes."""

from __future__ import annotations

import csv
import logging

import pytest
import torch
from PIL import Image
from processes import together
from quality_toys import Flat, ToyData, ToyModel
from torch.utils.data import DataLoader
from toys import ToyGenerator, make_data, make_trainer

from callbacks.scoring import Scoring
from lit_gen.core.progress import Course
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError, Phase
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.judges.likelihood import LogLikelihood
from lit_gen.evaluation.judges.posterior import PosteriorCollapse
from lit_gen.evaluation.judges.quality import SampleQuality
from lit_gen.evaluation.judges.task_accuracy import TaskAccuracy
from lit_gen.evaluation.judges.terms import TermMeans
from lit_gen.evaluation.note import in_tags
from lit_gen.evaluation.reports import ModeCollapse
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.kernel import InceptionScore
from lit_gen.metrics.neighbours import Neighbours
from lit_gen.tracking.metrics_file import MetricsFile


class Scripted:
    """Gives rows that are a function of the task seen last and the task looked at."""

    better = {"fid": "lower", "recall": "higher"}

    def __init__(self, every_n_epochs=0, **values):
        self.every_n_epochs, self.values, self.asked = every_n_epochs, values, []

    def check(self, context):
        if context.data is None:
            raise InputError("no data")

    def rows(self, context, split):
        self.asked.append(split)
        last = context.num_seen - 1
        values = self.values or {"fid": 10.0 * last + 1 / 3, "recall": 0.5, "floor_fid": 0.1}
        return [
            Row(task, metric, value + (task or 0), "lenet", "ab12", split, 100, 100, 0)
            for metric, value in values.items()
            for task in (*range(last + 1), None)
        ]


class Keeps(Scripted):
    def keep(self, folder, after_task):
        (folder / f"kept-{after_task}.txt").write_text("")
        return {"kept": torch.zeros(2, 2, 1, dtype=torch.uint8)}


class Loggers(MetricsFile):
    """Remembers rows and pictures."""

    def __init__(self, folder):
        super().__init__(folder)
        self.given, self.pictures = [], []

    def log_scores(self, tags):
        self.given.append(tags)

    def log_image(self, key, image, step):
        self.pictures.append(key)


def run(scoring, folder, num_tasks=2, **settings):
    data, model = make_data(num_tasks=num_tasks), ToyGenerator(epochs=2)
    trainer = make_trainer(scoring, default_root_dir=folder, **settings)
    fit_stages(
        trainer, model, data, after_task=lambda task: trainer.test(model, datamodule=data, verbose=False)
    )
    return trainer


def test_a_run_leaves_its_rows_in_files_loggers_and_state(tmp_path):
    logger = Loggers(tmp_path)
    scoring = Scoring({"scripted": Keeps()}, {"fid": 24, "source": "somewhere"}, ModeCollapse())
    run(scoring, tmp_path, logger=[logger])
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["after_task"], row["on_task"]) for row in rows if row["metric"] == "fid"] == [
        *(("0", "0"), ("0", "all")),
        *(("1", "0"), ("1", "1"), ("1", "all")),
    ]
    assert Image.open(tmp_path / "matrix.png").size[0] > 300
    assert "fid" in (tmp_path / "paper.txt").read_text() and (tmp_path / "kept-1.txt").exists()
    assert logger.given[-1] == in_tags(scoring.board) and logger.pictures == ["kept", "matrix"] * 2
    logger.flush()
    logged = {line.split(",")[2] for line in logger.path.read_text().splitlines()}
    names = {
        f"test/{name}/lenet"
        for name in ("fid", "floor/fid", "mean/fid", "forgetting/fid", "backward_transfer/fid")
    }
    assert names | {"test/fid/lenet/task1"} <= logged and "test/forgetting/floor_fid/lenet" not in logged
    torch.save(scoring.state_dict(), tmp_path / "state.pt")
    other = Scoring({}, collapse=ModeCollapse())
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.board.csv() == scoring.board.csv() == (tmp_path / "scores.csv").read_text()


def test_scores_of_tasks_to_come_and_the_forward_transfer_are_logged(tmp_path):
    logger, data, model = MetricsFile(tmp_path), ToyData(0), ToyModel()
    trainer = make_trainer(
        Scoring({"task_accuracy": TaskAccuracy()}), default_root_dir=tmp_path, logger=[logger]
    )
    trainer.test(model, datamodule=data, verbose=False)
    logger.flush()
    logged = {line.split(",")[2] for line in logger.path.read_text().splitlines()}
    names = {"task_accuracy", "task_accuracy/task1", "floor/task_accuracy/task1", "mean/task_accuracy"}
    assert {f"test/{name}" for name in names | {"forward_transfer/task_accuracy"}} <= logged
    assert not any("/backward_transfer/" in name or "/forgetting/" in name for name in logged)


def test_published_figures_wait_for_the_last_task_and_mere_evaluation_writes_nothing(tmp_path):
    data = make_data(num_tasks=2)
    for folder, writes in (("run", True), ("evaluation", False)):
        scoring = Scoring({"scripted": Scripted()}, {"fid": 24}, writes=writes)
        trainer = make_trainer(scoring, default_root_dir=tmp_path / folder)
        for task in (0, 1):
            data.current_task = task
            trainer.test(ToyGenerator(), datamodule=data, verbose=False)
            assert (tmp_path / folder / "paper.txt").exists() == (folder == "run" and task == 1)
    assert scoring.rows and not (tmp_path / "evaluation").exists()


def test_rows_that_others_added_while_the_run_was_stopped_stay(tmp_path):
    data, file = make_data(num_tasks=2), tmp_path / "scores.csv"
    trainer = make_trainer(Scoring({"scripted": Scripted()}), default_root_dir=tmp_path)
    added = [f"{task},all,fid,7.0,inception,cd34,test,9,9,0,lower" for task in (0, 1)]
    for task in (0, 1):
        data.current_task = task
        trainer.test(ToyGenerator(), datamodule=data, verbose=False)
        own = file.read_text().splitlines()
        file.write_text("\n".join([*own, *added]) + "\n")
    assert added[0] in own and added[1] not in own  # that of a task which was trained again
    assert sum(line.startswith("0,") for line in own) == 6 + 1


def test_judges_are_asked_in_validations_as_often_as_they_want(tmp_path):
    rare, never = Scripted(every_n_epochs=3), Scripted()
    run(Scoring({"rare": rare, "never": never}), tmp_path, num_tasks=1, num_sanity_val_steps=1)
    assert rare.asked == ["val", "test"] and never.asked == ["test"]  # four epochs


def test_scoring_leaves_training_as_it_is(tmp_path):
    def fitted(every_n_epochs):
        torch.manual_seed(0)
        module = ToyModel()
        judge = SampleQuality(Flat(), [FrechetDistance], every_n_epochs=every_n_epochs)
        scoring = Scoring({"quality": judge, "terms": TermMeans(every_n_epochs=every_n_epochs)})
        trainer = make_trainer(scoring, max_epochs=2)
        trainer.callbacks.pop(0)  # the switch, whose seeds would hide a disturbance
        module.enter(Phase.single("train", module.step, (module,)), Course(epochs=2))
        module.frozen.eval()
        trainer.fit(module, ToyData())
        return module, scoring, trainer

    (plain, silent, _), (scored, scoring, trainer) = fitted(0), fitted(1)
    assert silent.rows == [] and {row.split for row in scoring.rows} == {"val"} and len(scored.drawn) == 4
    assert "val/fid/flat" in trainer.callback_metrics and "val/loss/task0" in trainer.callback_metrics
    assert torch.equal(plain.weight, scored.weight)
    assert scored.training and scored.dropout.training and not scored.frozen.training


def test_a_likely_collapse_is_named(tmp_path, caplog):
    few = Scripted(class_coverage=0.4)
    with caplog.at_level(logging.WARNING, "callbacks.scoring"):
        run(Scoring({"few": few}, collapse=ModeCollapse()), tmp_path, num_tasks=1)
    assert "mode collapse is likely after epoch 4: images of 40% of the classes" in caplog.text


def test_all_that_judges_cannot_do_is_said_before_anything_runs():
    judges = {
        "quality": SampleQuality(Flat(), [FrechetDistance], source="translations"),
        "likelihood": LogLikelihood(),
        "posterior": PosteriorCollapse(),
        "terms": TermMeans(),
    }
    trainer = make_trainer(Scoring(judges))
    with pytest.raises(InputError) as refused:
        trainer.fit(ToyGenerator(), datamodule=make_data())
    lines = str(refused.value).splitlines()
    named = ["judges.quality.source=translations", "judges.likelihood", "judges.posterior"]
    assert [line.split(":")[0] for line in lines] == named
    assert trainer.global_step == 0
    with pytest.raises(ValueError, match=r"rare\.every_n_epochs=-1: must be at least 0"):
        Scoring({"rare": Scripted(every_n_epochs=-1)})
    with pytest.raises(InputError, match="datamodule"):
        make_trainer(Scoring(judges)).test(ToyModel(), DataLoader(torch.zeros(1)))


def _rows_of_every_judge(**settings):
    metrics = (FrechetDistance, Neighbours, InceptionScore)
    quality = SampleQuality(Flat(), metrics, batch_size=64, per_task=True, floor=True)
    judges = {
        "quality": quality,
        "likelihood": LogLikelihood(draws=3, batch_size=64, per_task=True),
        "terms": TermMeans(batch_size=64),
        "task_accuracy": TaskAccuracy(batch_size=64),
    }
    scoring = Scoring(judges, writes=False)
    make_trainer(scoring, **settings).test(ToyModel({"task"}), ToyData(), verbose=False)
    return scoring.rows


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path):
    alone = _rows_of_every_judge()
    together(2, _write_rows, tmp_path)
    for rank in range(2):
        rows = [Row(*row) for row in torch.load(tmp_path / f"{rank}.pt")]
        assert [row._replace(value=0.0) for row in rows] == [row._replace(value=0.0) for row in alone]
        assert [row.value for row in rows] == pytest.approx([row.value for row in alone], rel=1e-5)
        exact = [row.value for row in rows if not row.extractor]
        assert exact == [row.value for row in alone if not row.extractor]


def _write_rows(folder):
    found = _rows_of_every_judge(strategy="ddp", devices=2)
    torch.save([tuple(row) for row in found], folder / f"{torch.distributed.get_rank()}.pt")
