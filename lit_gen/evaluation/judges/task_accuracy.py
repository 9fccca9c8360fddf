"""How well a classifier tells the classes of one task apart, once it is told the task."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_gen.core.answers import logits_from
from lit_gen.core.random import Use
from lit_gen.core.types import Batch, Classifies, NonNegative, Positive, Split
from lit_gen.evaluation.board import FLOOR, Row
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.base import at_least
from lit_gen.metrics.task_matrix import Better

_NAME = "task_accuracy"


class TaskAccuracy:
    """Task-incremental accuracy: only the logits of the classes of an image's task count. These are the
    classes of the task's labelled training images and of its held-out ones.

    All tasks of the stream are judged, also those to come. The floor of each is what guessing gives, 1 /
    number of classes; the score over all tasks is that over the images of the tasks seen so far. Images
    without a label are left out, and logits that are no numbers give NaN. There are no rows of models that do
    not promise `Classifies`, of images without classes or with attributes, and of a stream of one task.

    Args:
        batch_size: images in a block; another size gives a classifier that draws noise other noise.
        every_n_epochs: in a fit; 0 judges in tests only.
    """

    better: dict[str, Better] = {_NAME: "higher"}

    def __init__(
        self, batch_size: Positive = 250, every_n_epochs: NonNegative = 0, seed: NonNegative = 0
    ) -> None:
        at_least(1, batch_size=batch_size)
        self.batch_size, self.every_n_epochs, self.seed = batch_size, every_n_epochs, seed

    def check(self, context: Context) -> None:
        """Whatever has no task accuracy has no rows."""

    def rows(self, context: Context, split: Split) -> list[Row]:
        data, able = context.data, context.model.abilities()
        if len(data.tasks) == 1 or data.spec.num_classes == 0 or not isinstance(able, Classifies):
            return []
        if data.dataset(split, [0]).__getitems__([0]).label.ndim > 1:
            return []
        context = context.with_blocks(self.batch_size, self.seed)

        def answer(batch: Batch) -> tuple[Tensor, Tensor]:
            with context.precision():
                logits = able.classify(batch.image)
            shape = (batch.size, data.spec.num_classes)
            return logits_from(able.classify, logits, shape).float(), batch.label

        rows, seen = [], []
        for task in data.tasks:
            images = data.dataset(split, [task.index])
            purpose = (Use.TASK_ACCURACY, task.index)
            logits, label = context.ask(answer, images, context.choose(len(images), None), *purpose)
            right, num_classes = _right(logits, label, torch.tensor(task.label_counts))
            chance = 1 / num_classes if num_classes else math.nan
            for metric, value in ((_NAME, float(right.mean())), (FLOOR + _NAME, chance)):
                rows.append(Row(task.index, metric, value, "", "", split, len(right), 0, self.seed))
            seen += [right] if task.index < context.num_seen else []
        right = torch.cat(seen)
        return [*rows, Row(None, _NAME, float(right.mean()), "", "", split, len(right), 0, self.seed)]


def _right(logits: Tensor, label: Tensor, counts: Tensor) -> tuple[Tensor, int]:
    """Whether each labelled image of a task is told right, float64 of 0 and 1; and among how many classes.

    Args:
        logits: [N, K].
        label: int64 [N]; -1 is left out.
        counts: [K], the task's training images of each class.
    """
    logits, label = logits[label >= 0], label[label >= 0]
    belongs = (counts + label.bincount(minlength=len(counts))) > 0
    guess = logits.masked_fill(~belongs, -math.inf).argmax(1)
    # The largest of logits that are no numbers is the first.
    right = torch.where(logits.isfinite().all(1), (guess == label).double(), torch.nan)
    return right, int(belongs.sum())
