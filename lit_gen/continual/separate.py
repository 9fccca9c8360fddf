"""One model per task, each trained on its own: an upper bound for methods that keep one model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task, Terms


class SeparateModels(LitGenerator):
    """Copies of a learner, of which each sees one task; nothing is forgotten and nothing is shared.

        >>> from lit_gen import VAE
        >>> model = SeparateModels(VAE(ImageSpec(1, 8, 10)), num_tasks=5)
        >>> list(model.sample(3, task=torch.tensor([0, 4, 2])).shape)
        [3, 1, 8, 8]

    Args:
        learner: any generator. Every copy starts from its weights, as the first task of another method does.
        num_tasks: length of the stream.
    """

    needs_every_task = True

    def __init__(self, learner: LitGenerator, num_tasks: Positive, spec: ImageSpec | None = None) -> None:
        super().__init__(spec or learner.spec, learner.make_optimizer, learner.schedule)
        num_bytes = sum(weight.nbytes for weight in learner.parameters())
        refuse_beyond_memory(num_tasks * num_bytes, f"num_tasks={num_tasks}: a model for each of them")
        self.learners = nn.ModuleList([copy.deepcopy(learner) for _ in range(num_tasks)])
        self.conditions = learner.conditions | {"task"}

    def phases(self, task: Task) -> tuple[Phase, ...]:
        return self.learners[task.index].phases(task)

    def memory_bytes(self) -> dict[str, int]:
        """All copies but the one that learns."""
        kept = super().memory_bytes()
        others = sum(weight.nbytes for learner in self.learners[1:] for weight in learner.parameters())
        return kept | {"parameters": kept["parameters"] + others}

    def evaluate(self, batch: Batch) -> Terms:
        """Means over the images, each seen by the model of its task."""
        sums: dict[str, Tensor] = {}
        for number in batch.task.unique().tolist():
            rows = batch.task == number
            some = batch.map(lambda part, rows=rows: part[rows])
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
