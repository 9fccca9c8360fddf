"""One model per task, each trained on its own: an upper bound for methods that keep one model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task, Terms


class SeparateModels(LitGenerator):
    """Copies of a learner, of which each sees one task; nothing is forgotten and nothing is shared.

    Args:
        learner: any generator. Every copy starts from its weights, as the first task of another method does.
        num_tasks: length of the stream.
    """

    needs_every_task = True

    def __init__(
        self, learner: LitGenerator, num_tasks: Positive, spec: ImageSpec | None = None, **base: Any
    ) -> None:
        super().__init__(
            spec=spec or learner.spec, optimizer=learner.make_optimizer, schedule=learner.schedule, **base
        )
        self.learners = nn.ModuleList([copy.deepcopy(learner) for _ in range(num_tasks)])
        self.conditions = learner.conditions | {"task"}

    def phases(self, task: Task) -> tuple[Phase, ...]:
        return self.learners[task.index].phases(task)

    def evaluate(self, batch: Batch) -> Terms:
        """Means over the images, each seen by the model of its task."""
        sums: dict[str, Tensor] = {}
        for number in batch.task.unique().tolist():
            rows = batch.task == number
            some = Batch(*(part[rows] for part in batch))
            for name, value in self.learners[number].evaluate(some).items():
                sums[name] = sums.get(name, 0) + value * rows.sum() / len(rows)
        return sums

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        self.refuse(label=label, task=task)
        task = task.to(self.device)
        images = torch.empty(n, self.spec.channels, self.spec.size, self.spec.size, device=self.device)
        for number in task.unique().tolist():
            rows = task == number
            learner = self.learners[number]
            given = {"label": label, "task": task}
            wanted = {name: given[name][rows.to(given[name].device)] for name in learner.conditions}
            images[rows] = learner.sample(int(rows.sum()), **wanted)
        return images
