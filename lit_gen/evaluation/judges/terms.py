"""What a model says about held-out images itself, task by task."""

from __future__ import annotations

import math

from torch import Tensor

from lit_gen.core.random import Use, seed_generators
from lit_gen.core.types import NonNegative, Positive, Split
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.base import at_least
from lit_gen.metrics.task_matrix import Better

_COSTS = ("loss", "error", "cross_entropy", "nll", "reconstruction")


class TermMeans:
    """Judges by the terms of the model's own `evaluate` (losses, the accuracy of a classifier): their means
    over the held-out images of each task seen so far, and over all of them.

    A term is a mean over a block; blocks count by their images. A block's noise is a function of the seed and
    of its first image, as in the Trainer's own tests.

    Args:
        batch_size: images in a block; another size gives other noise.
        every_n_epochs: in a fit; 0 judges in tests only.
        single_task: also of a stream of one task, whose terms the Trainer's test logs anyway: for models that
            are as much judged by them as by their samples.
    """

    def __init__(
        self,
        batch_size: Positive = 250,
        every_n_epochs: NonNegative = 0,
        seed: NonNegative = 0,
        single_task: bool = False,
    ) -> None:
        at_least(1, batch_size=batch_size)
        self.batch_size, self.every_n_epochs, self.seed = batch_size, every_n_epochs, seed
        self.single_task = single_task
        self.better: dict[str, Better] = {}

    def check(self, context: Context) -> None:
        """Every model has `evaluate`."""

    def rows(self, context: Context, split: Split) -> list[Row]:
        if len(context.data.tasks) == 1 and not self.single_task:
            return []
        context = context.with_blocks(self.batch_size, self.seed)
        found = [self._of_task(context, split, task) for task in range(context.num_seen)]
        rows = []
        for on_task, view in context.views(per_task=True):
            blocks = [block for task in found[view] for block in task]
            count = sum(size for size, _ in blocks)
            for name in dict.fromkeys(name for _, terms in blocks for name in terms):
                # In the order of the blocks, so that the sum is the same for any number of processes.
                total = sum(size * terms.get(name, math.nan) for size, terms in blocks)
                mean = total / count if count else math.nan
                rows.append(Row(on_task, name, mean, "", "", split, count, 0, self.seed))
        self.better = {row.metric: _better(row.metric) for row in rows}
        return rows

    def _of_task(self, context: Context, split: Split, task: int) -> list[tuple[int, dict[str, float]]]:
        """Size and terms of every block."""
        images = context.data.dataset(split, [task])

        def answer(places: Tensor) -> tuple[int, dict[str, float]]:
            batch = context.load(images, places)
            seed_generators(self.seed, Use.TERMS, batch.first, device=context.model.device)
            with context.precision():
                terms = context.model.evaluate(batch)
            return int(context.model.counted(batch)), {name: float(value) for name, value in terms.items()}

        total = min(len(images), self.batch_size) if context.is_dry else len(images)
        return context.over_blocks(total, answer, Use.TERMS, task)


def _better(term: str) -> Better:
    """Costs are better when they are low, and shares of right answers when they are high."""
    name = term.rpartition("/")[2]
    return "higher" if "accuracy" in name else "lower" if name in _COSTS else ""
