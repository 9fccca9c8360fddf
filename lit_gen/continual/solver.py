"""A classifier beside a continual generator, which learns past tasks from what the generator draws.

Source: Shin et al. 2017, "Continual Learning with Deep Generative Replay", arXiv:1705.08690, who call it the
solver.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lit_gen.continual.pool import PastTasks, Pool
from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitGenerator, LitModel, OptimizerFactory, Sampler
from lit_gen.core.random import Use
from lit_gen.core.types import Batch, Classifies, ImageSpec, Phase, Positive, Task, Terms

LabelSource = Literal["condition", "head", "solver"]


class Solver(LitGenerator):
    """Any continual generator, and a classifier that learns after it in every task.

    At task t a batch of B images for the classifier has B / (t + 1) real ones of the task; the others are
    drawn by the generator of past tasks, in proportion to their sizes and to the classes in them.

        >>> from lit_gen import VAE, Classifier
        >>> model = Solver(VAE(ImageSpec(1, 28, 10)), Classifier(ImageSpec(1, 28, 10)), num_tasks=5)
        >>> list(model.classify(model.sample(3)).shape)
        [3, 10]

    Args:
        generator: of continual learning, such as `GenerativeReplay`; it keeps its own phases.
        classifier: any that has one step, such as `Classifier`, with its own optimizer and schedule.
        num_tasks: length of the stream.
        labels: of drawn images: "condition", that with which they were drawn; "head", what the generator's
            own classifier says of them; "solver", what this classifier said before the task, among the
            classes of the image's task where the generator draws by tasks. None is the first that this
            generator can give.
        real: false: nothing but drawn images, of the current task too; not with labels="solver".
        pool_size: images drawn of each task, which are dealt out again and again.
        epochs: of the classifier; None is the Trainer's length.
        later_epochs, later_optimizer: of the classifier from the second task on; None is as in the first.
        sampler: draws the images; None draws them as all others.
    """

    def __init__(
        self,
        generator: LitGenerator,
        classifier: LitModel,
        num_tasks: Positive,
        labels: LabelSource | None = None,
        real: bool = True,
        pool_size: Positive = 5000,
        epochs: Positive | None = None,
        later_epochs: Positive | None = None,
        later_optimizer: OptimizerFactory | None = None,
        sampler: Sampler | None = None,
        spec: ImageSpec | None = None,
    ) -> None:
        super().__init__(spec or generator.spec, generator.make_optimizer, generator.schedule)
        if not isinstance(classifier, Classifies):
            raise ValueError(f"classifier: {type(classifier).__name__} tells no classes apart; take lenet's")
        self.generator, self.classifier = generator, classifier
        self.before = FrozenCopy(classifier)  # as it was before the task
        self.needs_every_task = generator.needs_every_task
        given = self._label_sources()
        self.labels = labels or given[0]
        if self.labels not in given:
            raise ValueError(
                f"labels={labels}: {type(generator).__name__} gives none so; take {' or '.join(given)}"
            )
        if not real and self.labels == "solver":
            raise ValueError(
                "real=false with labels=solver: before its first task the classifier knows nothing. Take "
                "real=true, or a generator that takes labels or classifies"
            )
        self.real, self.pool_size, self.epochs = real, pool_size, epochs
        self.later_epochs, self.later_optimizer = later_epochs, later_optimizer
        self.replay_sampler = sampler
        self.past = PastTasks(num_tasks, self.spec.num_classes)
        self.pool = Pool(self.spec)

    @property
    def conditions(self) -> frozenset[str]:
        return self.generator.conditions

    def phases(self, task: Task) -> tuple[Phase, ...]:
        epochs, optimizer = self.epochs, self.classifier.make_optimizer
        if self.past.seen > 0:
            epochs, optimizer = self.later_epochs or epochs, self.later_optimizer or optimizer
        phase = Phase.single(
            "solver", self.classifier.step, (self.classifier,), epochs, optimizer,
            schedule=self.classifier.schedule, prepare=partial(self.mixed, task),
            begin=self._begin, end=self._end,
        )  # fmt: skip
        return (*self.generator.phases(task), phase)

    def evaluate(self, batch: Batch) -> Terms:
        """Of the generator, with the classifier's accuracy and cross-entropy."""
        found = self.classifier.evaluate(batch)
        solved = {"accuracy": found["accuracy"], "cross_entropy": found["loss"]}
        return self.generator.evaluate(batch) | solved

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.generator.sample(n, label=label, task=task)

    def classify(self, image: Tensor) -> Tensor:
        return self.classifier.classify(image)

    # --- what the phase calls

    @torch.no_grad()
    def mixed(self, task: Task, batch: Batch) -> Batch:
        """Real images of the task and drawn ones, as many as there are in the batch."""
        kept = max(1, batch.size // (int(self.past.seen) + 1)) if self.real else 0
        if kept == batch.size:
            return batch
        replayed = self.replayed(task, batch.size - kept)
        real = batch.map(lambda part: part[:kept])
        return Batch(*(torch.cat(pair) for pair in zip(real, replayed, strict=True)))

    def replayed(self, task: Task, count: int) -> Batch:
        """The next drawn images, with labels."""
        seen = int(self.past.seen) + (not self.real)
        draw = partial(self._drawn, seen)
        return self.pool.dealt(count, lambda: self.pool.drawn(self.pool_size * seen, draw, Use.REPLAY_POOL))

    def _drawn(self, seen: int, count: int) -> Batch:
        """Images of the first `seen` tasks."""
        label, task = self.past.draw(count, seen)
        known = {"label": label, "task": task}
        given = {name: known[name] for name in self.conditions}
        sampler = self.replay_sampler
        image = self.sample(count, **given) if sampler is None else sampler(self.generator, count, **given)
        if self.labels == "head":
            label = self.generator.abilities().classify(image).argmax(1)
        elif self.labels == "solver":
            logits = self.before.net.classify(image)
            counts = self.past.label_counts
            possible = (counts[task] if "task" in given else counts[:seen].sum(0)) > 0
            label = torch.where(possible, logits, -torch.inf).argmax(1)
        return Batch(image, label, task, torch.full_like(task, -1))

    def _label_sources(self) -> list[LabelSource]:
        found: list[LabelSource] = ["condition"] * ("label" in self.generator.conditions)
        found += ["head"] * isinstance(self.generator.abilities(), Classifies)
        return [*found, "solver"]

    def _begin(self, task: Task) -> None:
        self.before.refresh(self.classifier)
        self.past.note(task)
        self.pool.begin()

    def _end(self, task: Task) -> None:
        self.pool.images = None
        self.past.close(task)
