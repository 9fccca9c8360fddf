"""Generative replay around any generator. Source: Shin et al. 2017, arXiv:1705.08690."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from lit_gen.continual.pool import PastTasks, Pool
from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitGenerator, Sampler
from lit_gen.core.progress import epochs_done
from lit_gen.core.random import Use
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task, Terms

Loss = Callable[[Batch, float], Terms]


class GenerativeReplay(LitGenerator):
    """Before each task a frozen copy of the learner is taken; its images of past tasks join every batch.

    A batch of B images at task t gets int(B * min(t, max_tasks) * share) replayed ones, the past tasks in
    proportion to their sizes: 0.5 B, B, 1.5 B, 1.5 B, ... with the defaults, which are those of the
    Multiband VAE reference (Deja et al. 2022, arXiv:2106.12196). Replayed images have index -1; they carry
    the label and task they were drawn with, -1 where the learner takes none. Labels follow the counts of
    the tasks seen so far.

        >>> from lit_gen import VAE, ImageSpec
        >>> model = GenerativeReplay(VAE(ImageSpec(1, 8, 10)), num_tasks=5)
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        learner: any generator; it keeps its own phases, turns and optimizers.
        num_tasks: length of the stream.
        share: replayed images per image and past task.
        max_tasks: past tasks beyond which the number of replayed images does not grow.
        replay: "per_batch" draws new images for every batch; "pool" draws some when the task begins, keeps
            them as uint8 on the device and deals them out again and again, for teachers that draw slowly.
        pool_size: images of the pool per past task.
        refresh_every: epochs after which the pool is drawn anew; None keeps it for the task.
        sampler: draws the replayed images; None draws them as all others.
        distil: replayed images teach what the teacher says of them (the learner's `distilled`) in place of
            the loss of real ones. Source: Masip et al. 2023, arXiv:2311.14028.
    """

    def __init__(
        self,
        learner: LitGenerator,
        num_tasks: Positive,
        share: Annotated[float, Gt(0)] = 0.5,
        max_tasks: Positive = 3,
        replay: Literal["per_batch", "pool"] = "per_batch",
        pool_size: Positive = 5000,
        refresh_every: Positive | None = None,
        sampler: Sampler | None = None,
        distil: bool = False,
        spec: ImageSpec | None = None,
    ) -> None:
        super().__init__(spec or learner.spec, optimizer=learner.make_optimizer, schedule=learner.schedule)
        self.learner = learner
        self.teacher = FrozenCopy(learner)
        self.share, self.max_tasks = share, max_tasks
        self.replay, self.pool_size, self.refresh_every = replay, pool_size, refresh_every
        self.conditions = learner.conditions
        self.replay_sampler, self.distil = sampler, distil
        if sampler is not None:
            sampler.check(learner)
        if distil and not hasattr(learner, "distilled"):
            raise ValueError(
                f"distil=true: {type(learner).__name__} has no noise prediction to distil; use distil=false, "
                "or a diffusion model as the learner"
            )
        self.past = PastTasks(num_tasks, self.spec.num_classes)
        self.pool = Pool(self.spec)
        self.register_buffer("pool_first_epoch", torch.zeros((), dtype=torch.long))
        self._pool_number = 0

    def phases(self, task: Task) -> tuple[Phase, ...]:
        phases = [replace(p, prepare=_after(self.with_replay, p.prepare)) for p in self.learner.phases(task)]
        if self.distil:
            (turn,) = phases[0].turns
            phases[0] = replace(phases[0], turns=(replace(turn, loss=partial(self._mixed, turn.loss)),))
        phases[0] = phases[0].framed(before=self._refresh)
        phases[-1] = phases[-1].framed(after=self.past.close)
        return tuple(phases)

    def evaluate(self, batch: Batch) -> Terms:
        return self.learner.evaluate(batch)

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.learner.sample(n, label=label, task=task)

    def abilities(self) -> nn.Module:
        return self.learner.abilities()

    def _mixed(self, loss: Loss, batch: Batch, progress: float) -> Terms:
        """The learner's loss on real images and the teacher's word on replayed ones, by their numbers."""
        replayed = batch.index < 0
        count = int(replayed.sum())
        if count == 0:
            return loss(batch, progress)
        terms = loss(batch.map(lambda part: part[~replayed]), progress)
        taught = self.learner.distilled(batch.map(lambda part: part[replayed]), self.teacher.net)
        part = count / batch.size
        total = (1 - part) * terms["loss"] + part * taught["loss"]
        return terms | {"loss": total, "distilled": taught["loss"].detach()}

    @torch.no_grad()
    def with_replay(self, batch: Batch) -> Batch:
        """The batch with the teacher's images behind it."""
        seen = int(self.past.seen)
        count = int(batch.size * min(seen, self.max_tasks) * self.share)
        if count == 0:
            return batch
        replayed = self._drawn(seen, count) if self.replay == "per_batch" else self._from_pool(seen, count)
        return Batch(*(torch.cat(pair) for pair in zip(batch, replayed, strict=True)))

    def _drawn(self, seen: int, count: int) -> Batch:
        """Images of the first `seen` tasks from the teacher."""
        label, task = self.past.draw(count, seen)
        conditions = {n: v for n, v in (("label", label), ("task", task)) if n in self.conditions}
        unknown = torch.full_like(task, -1)
        return Batch(
            image=self._taught(count, **conditions),
            label=conditions.get("label", unknown),
            task=conditions.get("task", unknown),
            index=unknown,
        )

    def _taught(self, count: int, **conditions: Tensor) -> Tensor:
        """Images from the teacher."""
        if self.replay_sampler is None:
            return self.teacher.net.sample(count, **conditions)
        return self.replay_sampler(self.teacher.net, count, **conditions)

    def _from_pool(self, seen: int, count: int) -> Batch:
        """The pool's next images, of the task's first pool or a later one by the epoch."""
        number = 0
        if self.refresh_every:
            number = (epochs_done(self.trainer) - int(self.pool_first_epoch)) // self.refresh_every
        if number != self._pool_number:
            self.pool.images, self._pool_number = None, number
        draw, place = partial(self._drawn, seen), (Use.REPLAY_POOL, number)
        return self.pool.dealt(count, lambda: self.pool.drawn(self.pool_size * seen, draw, *place))

    def _refresh(self, task: Task) -> None:
        self.teacher.refresh(self.learner)
        if self.replay == "pool":
            self.pool.begin()
            self.pool_first_epoch.fill_(epochs_done(self.trainer) if self.refresh_every else 0)


def _after(first: Any, second: Any | None) -> Any:
    """Prepares with `first`, then with `second` if there is one."""
    return first if second is None else lambda batch: second(first(batch))
