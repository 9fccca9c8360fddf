"""TaskAccuracy: a classifier that is told the task, on tasks seen and to come."""

import math

import pytest
import torch
from quality_toys import COUNTS, SPEC, Toy, ToyData, ToyModel, context_of, values
from torch.nn.functional import one_hot

from lit_gen.core.module import LitModel
from lit_gen.core.types import Task
from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.judges.task_accuracy import TaskAccuracy
from lit_gen.evaluation.judges.terms import TermMeans


class Knows(LitModel):
    """Knows the classes of the first task, which it is sure of; of the others it says class 3."""

    def classify(self, image):
        # Labels of the toys' images take turns, so that places say them.
        label = torch.arange(len(image)) % 2
        return 9.0 * one_hot(label, 4) + one_hot(torch.full_like(label, 3), 4) + self.broken

    def evaluate(self, batch):
        right = (self.classify(batch.image).argmax(1) == batch.label).double().mean()
        return {"loss": 1 - right, "accuracy": right, "local_accuracy": right + batch.task.max() / 4}

    broken = 0.0


class Attributes(Toy):
    def __init__(self, split, tasks):
        super().__init__(split, tasks)
        self.batch = self.batch._replace(label=torch.zeros(len(self), 4))


class Fog(ToyData):
    """The second task's training images have no labels, and some of its held-out ones have none."""

    tasks = (ToyData.tasks[0], Task(1, "1", (0, 0, 0, 0), 300, 300))

    def dataset(self, split, tasks):
        images = super().dataset(split, tasks)
        images.batch.label[images.batch.label == 3] = -1
        return images


def rows_of(model, data=None, **options):
    return TaskAccuracy(**{"batch_size": 50} | options).rows(context_of(model, data), "test")


def test_only_the_classes_of_a_task_count_and_tasks_to_come_are_judged():
    first, board, judges = COUNTS["test"][0], Board(), (TaskAccuracy(batch_size=50), TermMeans(batch_size=50))
    model = Knows(SPEC, optimizer=None)
    for after in (0, 1):
        rows = [row for judge in judges for row in judge.rows(context_of(model, ToyData(after)), "test")]
        board.put(after, rows, 2, judges[0].better | judges[1].better)
        found, total = values(rows), sum(COUNTS["test"][: after + 1])
        assert (found[0, "task_accuracy"], found[1, "task_accuracy"]) == (1, 0.5)
        assert found[None, "task_accuracy"] == pytest.approx(
            (first + 0.5 * (total - first)) / total, rel=1e-12
        )
        assert {found[task, "floor_task_accuracy"] for task in (0, 1)} == {0.5}
        assert [row.num_real for row in rows if row.metric == "task_accuracy"] == [150, 130, total]
    assert board.table().splitlines() == [
        "task_accuracy, higher is better",
        "         task 0  task 1",
        "after 0       1   0.500",
        "after 1       1   0.500",
        "floor     0.500   0.500",
        "mean 0.750, forgetting 0, backward transfer 0, forward transfer 0",
        "",
        "accuracy, higher is better",
        "         task 0  task 1",
        "after 0       1       -",
        "after 1       1       0",
        "local         1   0.250",
        "mean 0.500, forgetting 0, backward transfer 0",
    ]
    summary = board.summary()
    assert set(summary) == {"task_accuracy", "loss", "accuracy"}
    assert (summary["task_accuracy"].forward_transfer, summary["task_accuracy"].forward_transfer_over) == (
        0,
        1,
    )
    assert math.isnan(summary["accuracy"].forward_transfer) and summary["accuracy"].forward_transfer_over == 0


def test_the_forward_transfer_compares_with_the_floor_of_the_task():
    board = Board()
    for after, line in enumerate([[0.9, 0.4, 0.99], [0.95, 0.8, 0.3], [0.5, 0.85, 0.7]]):
        rows = [Row(task, "task_accuracy", v, "", "", "test", 1, 0, 0) for task, v in enumerate(line)]
        floors = [Row(t, "floor_task_accuracy", 1 / (t + 2), "", "", "test", 1, 0, 0) for t in range(3)]
        board.put(after, [*rows, *floors], 3, TaskAccuracy.better)
    summary = board.summary()["task_accuracy"]
    assert summary.forward_transfer == pytest.approx((0.4 - 1 / 3 + 0.3 - 1 / 4) / 2)
    assert summary.forgetting == pytest.approx((0.45 - 0.05) / 2)
    assert board.table().endswith("backward transfer -0.175, forward transfer 0.0583")


def test_hidden_labels_are_left_out_and_held_out_ones_say_the_classes_too():
    rows = rows_of(Knows(SPEC, optimizer=None), Fog())
    found = values(rows)
    assert (found[1, "task_accuracy"], found[1, "floor_task_accuracy"]) == (1, 1)  # class 2 alone
    assert [row.num_real for row in rows if row.on_task == 1] == [65, 65]


def test_logits_that_are_no_numbers_are_no_class():
    model = Knows(SPEC, optimizer=None)
    model.broken = torch.tensor([0, math.nan, 0, 0])
    found = values(rows_of(model))
    assert all(math.isnan(found[task, "task_accuracy"]) for task in (0, 1, None))
    assert found[0, "floor_task_accuracy"] == 0.5


def test_whatever_has_no_task_accuracy_has_no_rows():
    single, blank, many = ToyData(0), ToyData(), ToyData()
    single.tasks, blank.spec = single.tasks[:1], SPEC._replace(num_classes=0)
    many.dataset = Attributes
    for data in (single, blank, many):
        assert rows_of(ToyModel(), data) == []
    assert rows_of(LitModel(SPEC, optimizer=None)) == []
    with pytest.raises(ValueError, match="batch_size=0"):
        TaskAccuracy(batch_size=0)
