"""The matrix of scores: filled row by row, the same after a resume, written exactly."""

import csv

import pytest
import torch
from lightning import Callback
from PIL import Image
from toys import ToyGenerator, make_data, make_trainer

from callbacks.continual_scores import COLUMNS, ContinualScores
from callbacks.task_switch import fit_stages
from lit_gen.evaluation.scores import Score
from lit_gen.evaluation.tables import format_matrix
from lit_gen.tracking.metrics_file import MetricsFile

NAN = float("nan")


class Scripted(Callback):
    """Reports scores that are a function of the row and the column."""

    def __init__(self):
        self.scores = []

    def on_test_epoch_end(self, trainer, pl_module):
        row = trainer.datamodule.current_task
        self.scores = [
            Score(task, metric, value(metric, row, task), "lenet", "ab12", "test", 100, 100, 0)
            for metric in ("fid", "recall", "floor_fid")
            for task in (*range(row + 1), None)
        ]


def value(metric, row, task):
    column = -1 if task is None else task
    return {"fid": 10 * row + column + 1 / 3, "recall": 1 / (2 + row - column), "floor_fid": 0.1}[metric]


def run(folder, num_tasks=3, **settings):
    scores, data = ContinualScores(folder), make_data(num_tasks=num_tasks)
    trainer = make_trainer(Scripted(), scores, **settings)
    model = ToyGenerator(epochs=1)
    fit_stages(
        trainer, model, data, after_task=lambda task: trainer.test(model, datamodule=data, verbose=False)
    )
    return scores, trainer


def test_matrix_and_files_hold_what_was_reported(tmp_path):
    logger = MetricsFile(tmp_path)
    scores, _ = run(tmp_path, logger=[logger])
    assert torch.equal(
        scores.matrix("fid", "lenet").nan_to_num(-1),
        torch.tensor(
            [[value("fid", i, j) if j <= i else -1 for j in range(3)] for i in range(3)], dtype=torch.float64
        ),
    )
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 3 * (2 + 3 + 4)
    for row in rows:
        on_task = None if row["on_task"] == "all" else int(row["on_task"])
        assert float(row["value"]) == value(row["metric"], int(row["after_task"]), on_task)
    assert scores.summary()["fid/lenet"].mean == pytest.approx(21 + 1 / 3)
    assert scores.summary()["fid/lenet"].forgetting == pytest.approx((20 + 10) / 2)
    assert scores.summary()["fid/lenet"].all == value("fid", 2, None)
    assert scores.summary()["recall/lenet"].forgetting > 0
    assert set(scores.summary()) == {"fid/lenet", "recall/lenet"}
    logged = [line.split(",")[2:] for line in logger.path.read_text().splitlines()]
    assert ["test/mean/fid/lenet", repr(scores.summary()["fid/lenet"].mean)] in logged
    assert Image.open(tmp_path / "matrix.png").size[0] > 300


def test_state_survives_a_safe_load_and_a_repeated_row_changes_nothing(tmp_path):
    scores, trainer = run(tmp_path / "a")
    torch.save(scores.state_dict(), tmp_path / "state.pt")
    other = ContinualScores(tmp_path / "b")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.rows == scores.rows and other.csv_text() == scores.csv_text()
    before = (tmp_path / "a" / "scores.csv").read_bytes()
    scores.on_test_end(trainer, trainer.lightning_module)
    assert (tmp_path / "a" / "scores.csv").read_bytes() == before


def test_joint_training_has_one_row(tmp_path):
    scores, data = ContinualScores(tmp_path), make_data(num_tasks=3, joint=True)
    trainer = make_trainer(Scripted(), scores)
    model = ToyGenerator(epochs=1)
    fit_stages(
        trainer, model, data, after_task=lambda task: trainer.test(model, datamodule=data, verbose=False)
    )
    matrix = scores.matrix("fid", "lenet")
    assert matrix[:2].isnan().all() and matrix[2].tolist() == [value("fid", 2, j) for j in range(3)]
    assert scores.summary()["fid/lenet"].mean == pytest.approx(21 + 1 / 3)
    assert "after 2" in scores.table() and "after 0" not in scores.table()


def test_table_says_everything_the_command_prints():
    matrix = torch.tensor([[10.0, NAN, NAN], [30.0, 8.0, NAN], [250.0, 16.0, 4.0]], dtype=torch.float64)
    floor = torch.full((3, 3), 0.5, dtype=torch.float64)
    assert format_matrix("fid (lenet)", matrix, floor).splitlines() == [
        "fid (lenet), lower is better",
        "          task 0  task 1  task 2",
        "after 0     10.0       -       -",
        "after 1     30.0    8.00       -",
        "after 2      250    16.0    4.00",
        "floor      0.500   0.500   0.500",
        "mean 90.0, forgetting 124",
    ]


def test_nothing_reported_writes_nothing(tmp_path):
    scores, data = ContinualScores(tmp_path / "run"), make_data()
    trainer, model = make_trainer(scores), ToyGenerator(epochs=1)
    fit_stages(
        trainer, model, data, after_task=lambda task: trainer.test(model, datamodule=data, verbose=False)
    )
    assert scores.table() == "" and not (tmp_path / "run").exists()


def test_scores_over_everything_are_printed_in_a_line_each(tmp_path):
    table = ContinualScores(tmp_path)
    table.num_tasks = 1
    table.rows[0] = (
        Score(None, "fid", 195.04, "lenet", "0" * 12, "test", 10, 10, 0),
        Score(None, "floor_fid", 1.04, "lenet", "0" * 12, "test", 10, 10, 0),
    )
    assert table.table().split() == ["fid", "(lenet)", "195", "floor", "1.04,", "lower", "is", "better"]
