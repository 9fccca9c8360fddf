"""TermMeans: the model's own terms, task by task."""

import pytest
import torch
from quality_toys import SPEC, Toy, ToyData, ToyModel, context_of, values

from lit_gen.core.images import to_float
from lit_gen.core.module import LitModel
from lit_gen.evaluation.board import Board
from lit_gen.evaluation.judges.terms import TermMeans


def rows_of(module=None, data=None, **options):
    judge = TermMeans(**{"batch_size": 64} | options)
    return judge, judge.rows(context_of(module or ToyModel(), data), "test")


def test_terms_are_exact_means_over_the_images_of_each_task():
    judge, rows = rows_of()
    for on_task, tasks in ((0, [0]), (1, [1]), (None, [0, 1])):
        batch = Toy("test", tasks).batch
        loss = to_float(batch.image)[:, 0, 0, 0].double().mean().item()
        assert values(rows)[on_task, "loss"] == pytest.approx(loss, rel=1e-12)
        assert values(rows)[on_task, "accuracy"] == 0.5
        assert {row.num_real for row in rows if row.on_task == on_task} == {len(batch.image)}
    assert judge.better == {"loss": "lower", "accuracy": "higher", "noise": ""}


def test_noise_is_that_of_the_place_and_the_model_is_left_as_it_was():
    module = ToyModel().train()
    module.frozen.eval()
    state = torch.get_rng_state()
    first, again, other = (rows_of(module, seed=seed)[1] for seed in (0, 0, 1))
    assert first == again and values(first)[0, "noise"] != values(other)[0, "noise"]
    assert values(first)[0, "loss"] == values(other)[0, "loss"] and torch.get_rng_state().equal(state)


def test_a_classifier_of_tasks_has_an_accuracy_for_each_of_them():
    class Threshold(LitModel):
        """Finds the class by the mean of the image, and is right on one task only."""

        def classify(self, image):
            bright = (image.flatten(1).mean(1) > 0).long()
            return torch.nn.functional.one_hot(2 * bright + 1, 4).float()

        def evaluate(self, batch):
            right = self.classify(batch.image).argmax(1) == batch.label
            return {"loss": 1 - right.double().mean(), "accuracy": right.double().mean()}

    model, board, judge = Threshold(SPEC, optimizer=None), Board(), TermMeans(batch_size=40)
    for after in (0, 1):
        rows = judge.rows(context_of(model, ToyData(after)), "test")
        board.put(after, rows, 2, judge.better)
    for task in (0, 1):
        batch = Toy("test", [task]).batch
        right = (model.classify(to_float(batch.image)).argmax(1) == batch.label).double().mean()
        assert board.matrix("accuracy", "")[1, task] == pytest.approx(float(right), rel=1e-12)
    assert board.summary()["accuracy"].forgetting == 0 and "accuracy, higher is better" in board.table()


def test_only_tasks_seen_so_far_count_and_a_single_task_has_no_rows():
    data = ToyData(current_task=0)
    assert {row.on_task for row in rows_of(data=data)[1]} == {0, None}
    data.tasks = data.tasks[:1]
    assert rows_of(data=data)[1] == []
