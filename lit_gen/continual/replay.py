"""Generative replay around any generator. Source: Shin et al. 2017, arXiv:1705.08690."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn

from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task, Terms


class GenerativeReplay(LitGenerator):
    """Before each task a frozen copy of the learner is taken; its images of past tasks join every batch.

    A batch of B images at task t gets int(B * min(t, max_tasks) * share) replayed ones, the past tasks in
    proportion to their sizes: 0.5 B, B, 1.5 B, 1.5 B, ... with the defaults, which are those of the
    Multiband VAE reference (Deja et al. 2022, arXiv:2106.12196). Replayed images have index -1; they carry
    the label and task they were drawn with, -1 where the learner takes none. Labels follow the counts of
    the tasks seen so far.

    Args:
        learner: any generator; it keeps its own phases, turns and optimizers.
        num_tasks: length of the stream.
        share: replayed images per image and past task.
        max_tasks: past tasks beyond which the number of replayed images does not grow.
    """

    def __init__(
        self,
        learner: LitGenerator,
        num_tasks: Positive,
        share: Annotated[float, Gt(0)] = 0.5,
        max_tasks: Positive = 3,
        spec: ImageSpec | None = None,
        **base: Any,
    ) -> None:
        super().__init__(
            spec=spec or learner.spec, optimizer=learner.make_optimizer, schedule=learner.schedule, **base
        )
        self.learner = learner
        self.teacher = FrozenCopy(learner)
        self.share, self.max_tasks = share, max_tasks
        self.conditions = learner.conditions
        self.register_buffer("tasks_seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("task_sizes", torch.zeros(num_tasks))
        self.register_buffer("label_counts", torch.zeros(num_tasks, max(1, self.spec.num_classes)))

    def phases(self, task: Task) -> tuple[Phase, ...]:
        phases = [replace(p, prepare=_after(self.with_replay, p.prepare)) for p in self.learner.phases(task)]
        first, last = phases[0], phases[-1]
        phases[0] = replace(first, begin=_both(self._refresh, first.begin))
        phases[-1] = replace(phases[-1], end=_both(last.end, self._close))
        return tuple(phases)

    def evaluate(self, batch: Batch) -> Terms:
        return self.learner.evaluate(batch)

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.learner.sample(n, label=label, task=task)

    def abilities(self) -> nn.Module:
        return self.learner.abilities()

    @torch.no_grad()
    def with_replay(self, batch: Batch) -> Batch:
        """The batch with the teacher's images behind it."""
        seen = int(self.tasks_seen)
        count = int(len(batch.image) * min(seen, self.max_tasks) * self.share)
        if count == 0:
            return batch
        task = torch.multinomial(self.task_sizes[:seen], count, replacement=True)
        label = torch.multinomial(self.label_counts[task], 1).squeeze(1)
        conditions = {n: v for n, v in (("label", label), ("task", task)) if n in self.conditions}
        unknown = torch.full_like(task, -1)
        replayed = Batch(
            image=self.teacher.net.sample(count, **conditions),
            label=conditions.get("label", unknown),
            task=conditions.get("task", unknown),
            index=unknown,
        )
        return Batch(*(torch.cat(pair) for pair in zip(batch, replayed, strict=True)))

    def _refresh(self, task: Task) -> None:
        self.teacher.refresh(self.learner)

    def _close(self, task: Task) -> None:
        self.task_sizes[task.index] = task.num_images
        counts = torch.tensor(task.label_counts or (1,), dtype=torch.float)
        # Data without labels still needs a row that can be drawn from.
        self.label_counts[task.index] = counts if counts.sum() > 0 else torch.ones_like(counts)
        self.tasks_seen.fill_(task.index + 1)


def _after(first: Any, second: Any | None) -> Any:
    """Prepares with `first`, then with `second` if there is one."""
    return first if second is None else lambda batch: second(first(batch))


def _both(first: Any, second: Any) -> Any:
    def begin_or_end(task: Task) -> None:
        first(task)
        second(task)

    return begin_or_end
