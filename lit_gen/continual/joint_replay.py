"""Joint diffusion, task after task: a local model learns the task, then a global one learns from what it and
the global model before it draw.

Source: Skiers & Deja 2025, "Joint Diffusion in Continual Learning", arXiv:2411.08224, and the authors' code.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from lit_gen.continual.pool import PastTasks, Pool
from lit_gen.core.frozen import FrozenCopy, copy_state
from lit_gen.core.module import LitGenerator, Sampler
from lit_gen.core.random import Use, forked_rng
from lit_gen.core.types import Batch, Classifies, Fraction, ImageSpec, Phase, Positive, Task, Terms
from lit_gen.diffusion.outputs import noised, target
from lit_gen.families.diffusion import Diffusion

log = logging.getLogger(__name__)
Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Weights:
    """Of the terms of the global model's loss.

    Without distillation (0 for `noise` and `classes`) it learns from drawn images as from real ones; take 1
    for `error` and 1e-3 for `label` then.
    """

    error: Weight = 0.01  # of the noise that was added
    noise: Weight = 1.0  # distance to what the teacher says of the noise
    label: Weight = 1e-5  # cross-entropy of the labels that the teachers gave
    classes: Weight = 1e-3  # divergence from the teacher's chances of the classes


class JointReplay(LitGenerator):
    """A local joint diffusion model learns from the images of a task, and begins as the global one. That one
    goes on from where it was, on images alone that it itself drew before (old ones) and that the local model
    draws (new ones): each half of a batch has a teacher of its own, whose words are distilled.

    Images are drawn without a label, get that which their teacher's head gives them, and as many are kept of
    every class that the teacher learned. Samples, codes and classes are those of the global model, and of the
    local one before there is one.

        >>> from lit_gen import ImageSpec, JointDiffusion
        >>> model = JointReplay(JointDiffusion(ImageSpec(1, 8, 10)), num_tasks=5)
        >>> list(model.classify(model.sample(3)).shape)
        [3, 10]

    Args:
        learner: the local model, a diffusion model that classifies; the global one is as it.
        num_tasks: length of the stream.
        per_class: drawn images of every class.
        epochs: of the global model's phase, over as many drawn images as the task has real ones; None is the
            Trainer's length.
        weights: of the loss's terms; those of noise and classes count 2 n_old / n for old and 2 n_new / n for
            new images, where n_old and n_new of n were drawn.
        late_classes: part of the phase after which labels and classes are learned.
        sampler: draws the images; None draws them as all others.
    """

    needs_every_task = True

    def __init__(
        self,
        learner: Diffusion,
        num_tasks: Positive,
        per_class: Positive = 1000,
        epochs: Positive | None = None,
        weights: Weights = Weights(),
        late_classes: Fraction = 1 / 3,
        sampler: Sampler | None = None,
        spec: ImageSpec | None = None,
    ) -> None:
        super().__init__(spec or learner.spec, learner.make_optimizer, learner.schedule)
        if not isinstance(learner, Classifies):
            raise ValueError(f"learner: {type(learner).__name__} does not classify; take joint_diffusion")
        if learner.attributes:
            raise ValueError("attributes=true: images are drawn evenly of classes, which attributes are not")
        self.local, self.whole = learner, copy.deepcopy(learner)
        self.before = FrozenCopy(learner)  # the global model as it was before the task
        self.per_class, self.epochs = per_class, epochs
        self.weights, self.late_classes, self.replay_sampler = weights, late_classes, sampler
        if sampler is not None:
            sampler.check(learner)
        self.past = PastTasks(num_tasks, self.spec.num_classes)
        self.old, self.new = Pool(self.spec), Pool(self.spec)

    @property
    def conditions(self) -> frozenset[str]:
        return self.whole.conditions

    def phases(self, task: Task) -> tuple[Phase, ...]:
        first, *others = self.local.phases(task)
        if task.index == 0:
            *others, last = first, *others
            return (*others, last.framed(after=self._adopt))
        prepare = partial(self.replaced, task)
        consolidation = Phase.single(
            "consolidation", self.consolidate, (self.whole,), self.epochs, prepare=prepare,
            begin=self._take_teacher, end=self._close,
        )  # fmt: skip
        return (first.framed(before=self._start_from_global), *others, consolidation)

    def consolidate(self, batch: Batch, progress: float) -> Terms:
        """Of a batch whose first half are old images and whose second half new ones."""
        student, weights = self.whole, self.weights
        halves = [batch.map(lambda part, side=side: part.tensor_split(2)[side]) for side in range(2)]
        pools = (self.old.images, self.new.images)
        counts = [(half if pool is None else pool).size for pool, half in zip(pools, halves, strict=True)]
        share = torch.cat(
            [
                torch.full((half.size,), 2 * count / sum(counts), device=batch.image.device)
                for half, count in zip(halves, counts, strict=True)
            ]
        )
        t, _ = student.times.draw(batch.size, student.path, batch.image.device)
        noise = torch.randn_like(batch.image)
        x = noised(student.path, t, batch.image, noise)
        said, _ = student.said(x, t, None)
        wanted = target(student.output, student.path, t, batch.image, noise)
        taught = self._taught(lambda teacher, x, t: teacher.said(x, t, None)[0], x, t)
        error, distance = (student.distance(said, each, t) for each in (wanted, taught))
        loss = weights.error * error.mean() + weights.noise * (share * distance).mean()
        terms = {"error": error.mean(), "distilled": distance.mean()}
        if progress >= self.late_classes and (weights.label or weights.classes):
            lessons = [student.lesson(half) for half in halves]
            image, label = (torch.cat(parts) for parts in zip(*lessons, strict=True))
            logits = student.classify(image)
            taught = self._taught(lambda teacher, image: teacher.classify(image), image)
            miss, away = student.miss(logits, label), divergence(logits, taught)
            loss = loss + weights.label * miss.mean() + weights.classes * (share * away).mean()
            terms |= {"cross_entropy": miss.mean(), "divergence": away.mean()}
        else:  # processes wait for gradients of all that a phase trains
            loss = loss + 0 * sum(parameter.sum() for parameter in student.head.parameters())
        return {"loss": loss, **terms}

    def evaluate(self, batch: Batch) -> Terms:
        """Of the global model, and, named local_*, of the local one."""
        local = self.local.evaluate(batch)
        if self.past.seen == 0:
            return local
        return self.whole.evaluate(batch) | {f"local_{name}": value for name, value in local.items()}

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.abilities().sample(n, label=label, task=task)

    def sample_local(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.local.sample(n, label=label, task=task)

    def classify(self, image: Tensor) -> Tensor:
        return self.abilities().classify(image)

    def abilities(self) -> Diffusion:
        return self.local if self.past.seen == 0 else self.whole

    # --- drawn images

    @torch.no_grad()
    def replaced(self, task: Task, batch: Batch) -> Batch:
        """As many drawn images as there are in the batch, but one of each kind at least; old ones first."""
        num_old, num_new = (max(1, len(part)) for part in batch.image.tensor_split(2))
        past, now = self.past.label_counts[: task.index], torch.tensor([task.label_counts])
        halves = (
            self.old.dealt(num_old, partial(self.balanced, self.old, self.before.net, past)),
            self.new.dealt(num_new, partial(self.balanced, self.new, self.local, now)),
        )
        return Batch(*(torch.cat(parts) for parts in zip(*halves, strict=True)))

    def balanced(self, pool: Pool, teacher: Diffusion, label_counts: Tensor) -> Batch:
        """Images that the teacher draws, `per_class` of each of the classes that it learned, in a random
        order.

        Args:
            label_counts: of the tasks that it learned, [T, K].

        It draws up to ten times as many. A class that it drew too few of has some twice, and one that it did
        not draw at all is missing (all of them: nothing is chosen), with a warning.
        """
        device = pool.seed.device
        classes = label_counts.to(device).sum(0) > 0
        count = int(classes.sum()) * self.per_class
        parts: list[Batch] = []
        for wave in range(10):
            parts.append(pool.drawn(count, partial(self._labelled, teacher), Use.REPLAY_POOL, wave))
            label = torch.cat([part.label for part in parts])
            found = torch.bincount(label, minlength=len(classes))
            if (found[classes] >= self.per_class).all():
                break
        every = Batch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        chosen = []
        for kind in classes.nonzero().flatten().tolist():
            places = (label == kind).nonzero().flatten()
            if len(places) < self.per_class:
                log.warning("of class %d only %d of %d drawn images", kind, len(places), self.per_class)
            repeats = -(-self.per_class // max(1, len(places)))
            chosen.append(places.repeat(repeats)[: self.per_class])
        places = torch.cat(chosen)
        if len(places) == 0:
            places = torch.arange(every.size, device=device)
        with forked_rng(int(pool.seed), Use.REPLAY_POOL, device=device):
            places = places[torch.randperm(len(places), device=device)]
        return every.map(lambda part: part[places])

    def _labelled(self, teacher: Diffusion, count: int) -> Batch:
        sampler = self.replay_sampler
        image = teacher.sample(count) if sampler is None else sampler(teacher, count)
        unknown = torch.full((count,), -1, device=image.device)
        return Batch(image, teacher.classify(image).argmax(1), unknown, unknown)

    # --- between phases

    def _taught(self, says: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """What the teachers say of the halves."""
        sides, teachers = (each.tensor_split(2) for each in given), (self.before.net, self.local)
        with torch.no_grad():
            return torch.cat([says(*each) for each in zip(teachers, *sides, strict=True)])

    def _start_from_global(self, task: Task) -> None:
        copy_state(self.whole, self.local)

    def _take_teacher(self, task: Task) -> None:
        self.before.refresh(self.whole)
        self.old.begin()
        self.new.begin()

    def _adopt(self, task: Task) -> None:
        copy_state(self.local, self.whole)
        self._close(task)

    def _close(self, task: Task) -> None:
        self.old.images = self.new.images = None
        self.past.close(task)


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher's chances || the student's), nats of each image: [B]."""
    wanted = teacher.float().log_softmax(1)
    return F.kl_div(logits.float().log_softmax(1), wanted, reduction="none", log_target=True).sum(1)
